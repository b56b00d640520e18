"""When the daemon plays: each mode, the changes between them, and the beat of a MIDI clock."""

from __future__ import annotations

import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median

from tests.live.live_session import LiveSession
from tests.live.peer import Peer

PHRASE = (60, 64, 67, 72, 67, 64, 62, 65)
START, CONTINUE, STOP, TICK, PPQ = 0xFA, 0xFB, 0xFC, 0xF8, 24
Start = Callable[..., LiveSession]


def test_respond_mode_replies_after_the_phrase(start_session: Start) -> None:
    session = start_session()
    session.peer.play(*PHRASE)
    ended = time.perf_counter()
    session.wait_for_state("playing")
    session.wait_for_state("listening")
    assert len(session.peer.notes) >= 3
    assert all(note.time > ended for note in session.peer.notes)
    session.wait_for_silence()


def test_duet_mode_plays_with_the_human_and_stops_afterwards(start_session: Start) -> None:
    session = start_session("--mode", "duet")
    human = session.peer.play(*PHRASE * 4)
    assert sum(human[0].time < note.time < human[-1].time for note in session.peer.notes) >= 3
    assert session.remote.states == ["playing"], "the human's keys interrupted it"
    session.wait_for_state("listening")
    session.wait_for_silence()


def test_solo_mode_starts_by_itself_and_stops_on_yield(start_session: Start) -> None:
    session = start_session("--mode", "solo")
    session.wait_for_notes()
    session.remote.send("yield")
    session.wait_for_state("listening")
    session.wait_for_silence()
    state_count = len(session.remote.states)
    session.remote.send("takeover")
    session.wait_for_notes()
    session.peer.play()
    session.wait_for_notes()
    assert session.remote.states[state_count:] == ["playing"], "the human's keys interrupted it"
    session.remote.send("yield")
    session.wait_for_state("listening", since=state_count)
    session.wait_for_silence()


def test_listen_mode_never_plays_but_absorbs_the_input(start_session: Start) -> None:
    session = start_session("--mode", "listen")
    session.peer.play(*PHRASE)
    session.remote.send("takeover")
    time.sleep(1.5)
    assert session.peer.struck == 0
    assert session.remote.states == []
    session.peer.until(lambda: session.remote.received("stats") and history(session) >= 2 * len(PHRASE))


def history(session: LiveSession) -> float:
    """Number of events in the model's history, as the daemon reports it."""
    values = session.remote.received("stats")[-1].values
    return float(str(values[values.index("history") + 1]))


def test_mode_changes_while_playing_leave_no_sounding_notes(start_session: Start) -> None:
    session = start_session("--mode", "listen")
    for mode in ("solo", "duet", "respond"):
        state_count = len(session.remote.states)
        session.remote.send("mode", mode)
        session.remote.send("takeover")
        session.wait_for_notes()
        session.remote.send("mode", "listen")
        session.wait_for_state("listening", since=state_count)
        session.wait_for_silence()
    for mode in ("duet", "respond", "duet", "respond"):  # their turns end by themselves; those of solo do not
        session.remote.send("mode", "solo")
        session.wait_for_notes(2)
        session.remote.send("mode", mode)
        time.sleep(0.3)
    session.remote.send("mode", "solo")
    session.wait_for_notes()
    session.remote.send("hold", 1)
    session.wait_for_state("listening")
    session.wait_for_silence()


class ClockSender:
    """Sends a MIDI clock to the daemon from a thread."""

    def __init__(self, peer: Peer, bpm: float) -> None:
        self._peer, self._period = peer, 60 / bpm / PPQ
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.beats: list[float] = []

    def _run(self) -> None:
        begun = time.perf_counter()
        for number in range(100_000):
            if self._ending.wait(max(begun + number * self._period - time.perf_counter(), 0)):
                return
            if number % PPQ == 0:
                self.beats.append(time.perf_counter())
            self._peer.send(TICK)

    @contextmanager
    def running(self, status: int = START) -> Iterator[None]:
        self._peer.send(status)
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join()
            self._peer.send(STOP)

    def distance_to_quarter(self, when: float) -> float:
        """Seconds from ``when``, a time before the latest beat, to the nearest quarter of a beat."""
        after = bisect(self.beats, when)
        length = self.beats[after] - self.beats[after - 1]
        place = (when - self.beats[after - 1]) / length * 4
        return abs(place - round(place)) / 4 * length

    def distance_to_beat(self, when: float) -> float:
        """Seconds from ``when`` to the nearest beat so far."""
        return min(abs(when - beat) for beat in self.beats)


CLOCK = '[clock]\nsource = "midi"\n'


def test_reply_starts_on_the_beat_of_a_midi_clock_and_ends_at_stop(start_session: Start) -> None:
    session = start_session("--start-on", "beat", settings=CLOCK)
    clock, distances = ClockSender(session.peer, bpm=100), []
    with clock.running():
        session.peer.until(lambda: len(clock.beats) >= 3)
        session.daemon.wait_for_line("tempo: (99|100|101).* beats per minute")
        for wait in (0.13, 0.31, 0.47, 0.05, 0.22):  # anywhere in the beat
            before, state_count = session.peer.struck, len(session.remote.states)
            time.sleep(wait)
            session.remote.send("takeover")
            session.wait_for_notes()
            note = session.peer.notes[before].time
            session.peer.until(lambda note=note: clock.beats[-1] > note)  # the next beat may be nearer
            distances.append(clock.distance_to_beat(note))
            session.remote.send("yield")
            session.wait_for_state("listening", since=state_count)
        state_count = len(session.remote.states)
        session.remote.send("mode", "solo")  # plays until the stop
        session.wait_for_notes()
    session.wait_for_state("listening", since=state_count)
    session.wait_for_silence()
    session.remote.send("takeover")
    session.wait_for_silence()
    assert median(distances) < 0.04, distances


def test_pulse_aligns_notes_to_quarters_of_the_midi_clock_beat(start_session: Start) -> None:
    session = start_session("--mode", "listen", settings=CLOCK)
    clock, distances = ClockSender(session.peer, bpm=90), dict[float, float]()
    with clock.running():
        session.daemon.wait_for_line("tempo: (89|90|91).* beats per minute")
        for pulse in (0.0, 1.0):
            state_count, before = len(session.remote.states), session.peer.struck
            session.remote.send("pulse", pulse)
            session.remote.send("mode", "solo")
            session.wait_for_notes(30)
            session.remote.send("mode", "listen")
            session.wait_for_state("listening", since=state_count)
            times = [note.time for note in session.peer.notes[before + 1 :]]  # a solo begins at once
            heads = [time for earlier, time in pairwise(times) if time - earlier > 0.06]
            session.peer.until(lambda heads=heads: clock.beats[-1] > heads[-1])
            distances[pulse] = median(map(clock.distance_to_quarter, heads))
    session.wait_for_silence()
    assert distances[1.0] < distances[0.0] / 2, distances  # random notes have 42 ms


def test_machine_plays_again_when_the_midi_clock_continues(start_session: Start) -> None:
    session = start_session("--mode", "solo", settings=CLOCK)
    with ClockSender(session.peer, bpm=120).running():
        session.wait_for_notes()
        state_count = len(session.remote.states)
    session.wait_for_state("listening", since=state_count)  # so the stop has arrived: a solo does not end by itself
    session.wait_for_silence()
    before = session.peer.struck
    session.remote.send("takeover")
    session.wait_for_silence()
    assert session.peer.struck == before
    again = ClockSender(session.peer, bpm=120)
    with again.running(CONTINUE):
        session.peer.until(lambda: len(again.beats) >= 2)
        session.remote.send("takeover")
        session.wait_for_notes()


def test_takeover_key_starts_a_turn(start_session: Start) -> None:
    session = start_session(settings="[midi]\ntakeover_key = 108\n")
    session.peer.send(0x90, 108, 100)
    session.wait_for_notes()  # though no phrase was played
    session.peer.send(0x80, 108, 64)
    session.wait_for_state("playing")
    session.remote.send("mode", "listen")
    session.wait_for_state("listening")
    session.wait_for_silence()
