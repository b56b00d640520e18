"""What the daemon plays when: every mode, the changes between them, and the beat of a MIDI clock."""

from __future__ import annotations

import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median

from tests.live.peer import Peer
from tests.live.stage import Stage

PHRASE = (60, 64, 67, 72, 67, 64, 62, 65)
START, CONTINUE, STOP, TICK, PPQ = 0xFA, 0xFB, 0xFC, 0xF8, 24
Start = Callable[..., Stage]


def test_respond_answers_once_the_phrase_has_ended(stage: Start) -> None:
    one = stage()
    one.peer.play(*PHRASE)
    ended = time.perf_counter()
    one.wait_for_state("playing")
    one.wait_for_state("listening")
    assert len(one.peer.notes) >= 3
    assert all(note.time > ended for note in one.peer.notes)
    one.wait_for_silence()


def test_duet_plays_while_the_human_plays_and_ends_some_time_after(stage: Start) -> None:
    one = stage("--mode", "duet")
    human = one.peer.play(*PHRASE * 4)
    assert sum(human[0].time < note.time < human[-1].time for note in one.peer.notes) >= 3
    assert one.remote.states == ["playing"], "the human's keys interrupt it"
    one.wait_for_state("listening")
    one.wait_for_silence()


def test_solo_starts_by_itself_and_stops_when_told_to_yield(stage: Start) -> None:
    one = stage("--mode", "solo")
    one.wait_for_notes()
    one.remote.send("yield")
    one.wait_for_state("listening")
    one.wait_for_silence()
    told = len(one.remote.states)
    one.remote.send("takeover")
    one.wait_for_notes()
    one.peer.play()
    one.wait_for_notes()
    assert one.remote.states[told:] == ["playing"], "the human's keys interrupt it"
    one.remote.send("yield")
    one.wait_for_state("listening", since=told)
    one.wait_for_silence()


def test_listen_never_plays_but_remembers(stage: Start) -> None:
    one = stage("--mode", "listen")
    one.peer.play(*PHRASE)
    one.remote.send("takeover")
    time.sleep(1.5)
    assert one.peer.struck == 0
    assert one.remote.states == []
    one.peer.until(lambda: one.remote.received("stats") and history(one) >= 2 * len(PHRASE))


def history(one: Stage) -> float:
    """Events that the daemon says it remembers."""
    values = one.remote.received("stats")[-1].values
    return float(str(values[values.index("history") + 1]))


def test_modes_change_while_it_plays_and_nothing_is_left_sounding(stage: Start) -> None:
    one = stage("--mode", "listen")
    for mode in ("solo", "duet", "respond"):
        told = len(one.remote.states)
        one.remote.send("mode", mode)
        one.remote.send("takeover")
        one.wait_for_notes()
        one.remote.send("mode", "listen")
        one.wait_for_state("listening", since=told)
        one.wait_for_silence()
    for mode in ("duet", "respond", "duet", "respond"):  # whose turns end some time, where solo's do not
        one.remote.send("mode", "solo")
        one.wait_for_notes(2)
        one.remote.send("mode", mode)
        time.sleep(0.3)
    one.remote.send("mode", "solo")
    one.wait_for_notes()
    one.remote.send("hold", 1)
    one.wait_for_state("listening")
    one.wait_for_silence()


class Conductor:
    """MIDI clock for the daemon, from a thread."""

    def __init__(self, peer: Peer, bpm: float) -> None:
        self._peer, self._period = peer, 60 / bpm / PPQ
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._conduct)
        self.beats: list[float] = []

    def _conduct(self) -> None:
        begun = time.perf_counter()
        for number in range(100_000):
            if self._ending.wait(max(begun + number * self._period - time.perf_counter(), 0)):
                return
            if number % PPQ == 0:
                self.beats.append(time.perf_counter())
            self._peer.send(TICK)

    @contextmanager
    def conducting(self, status: int = START) -> Iterator[None]:
        self._peer.send(status)
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join()
            self._peer.send(STOP)

    def off_quarters(self, when: float) -> float:
        """Seconds from a moment, before the latest beat, to the nearest quarter of a beat."""
        after = bisect(self.beats, when)
        length = self.beats[after] - self.beats[after - 1]
        place = (when - self.beats[after - 1]) / length * 4
        return abs(place - round(place)) / 4 * length

    def off(self, when: float) -> float:
        """Seconds from a moment to the nearest beat so far."""
        return min(abs(when - beat) for beat in self.beats)


CLOCK = '[clock]\nsource = "midi"\n'


def test_a_reply_begins_on_the_beat_of_a_midi_clock_and_a_stop_silences_it(stage: Start) -> None:
    one = stage("--start-on", "beat", settings=CLOCK)
    conductor, off = Conductor(one.peer, bpm=100), []
    with conductor.conducting():
        one.peer.until(lambda: len(conductor.beats) >= 3)
        one.daemon.wait_for_line("tempo: (99|100|101).* beats per minute")
        for wait in (0.13, 0.31, 0.47, 0.05, 0.22):  # anywhere in the beat
            before, told = one.peer.struck, len(one.remote.states)
            time.sleep(wait)
            one.remote.send("takeover")
            one.wait_for_notes()
            note = one.peer.notes[before].time
            one.peer.until(lambda note=note: conductor.beats[-1] > note)  # it may be nearer to the beat that is yet to come
            off.append(conductor.off(note))
            one.remote.send("yield")
            one.wait_for_state("listening", since=told)
        told = len(one.remote.states)
        one.remote.send("mode", "solo")  # which goes on until the stop
        one.wait_for_notes()
    one.wait_for_state("listening", since=told)
    one.wait_for_silence()
    one.remote.send("takeover")
    one.wait_for_silence()
    assert median(off) < 0.04, off


def test_a_pulse_draws_the_notes_to_the_quarters_of_the_beat_of_a_midi_clock(stage: Start) -> None:
    one = stage("--mode", "listen", settings=CLOCK)
    conductor, off = Conductor(one.peer, bpm=90), dict[float, float]()
    with conductor.conducting():
        one.daemon.wait_for_line("tempo: (89|90|91).* beats per minute")
        for pulse in (0.0, 1.0):
            told, before = len(one.remote.states), one.peer.struck
            one.remote.send("pulse", pulse)
            one.remote.send("mode", "solo")
            one.wait_for_notes(30)
            one.remote.send("mode", "listen")
            one.wait_for_state("listening", since=told)
            times = [note.time for note in one.peer.notes[before + 1 :]]  # a solo begins at once
            heads = [time for earlier, time in pairwise(times) if time - earlier > 0.06]
            one.peer.until(lambda heads=heads: conductor.beats[-1] > heads[-1])
            off[pulse] = median(map(conductor.off_quarters, heads))
    one.wait_for_silence()
    assert off[1.0] < off[0.0] / 2, off  # by chance it is 42 ms


def test_a_stopped_clock_that_goes_on_lets_the_machine_play_again(stage: Start) -> None:
    one = stage("--mode", "solo", settings=CLOCK)
    with Conductor(one.peer, bpm=120).conducting():
        one.wait_for_notes()
        told = len(one.remote.states)
    one.wait_for_state("listening", since=told)  # so the stop has arrived: a solo does not end by itself
    one.wait_for_silence()
    before = one.peer.struck
    one.remote.send("takeover")
    one.wait_for_silence()
    assert one.peer.struck == before
    again = Conductor(one.peer, bpm=120)
    with again.conducting(CONTINUE):
        one.peer.until(lambda: len(again.beats) >= 2)
        one.remote.send("takeover")
        one.wait_for_notes()


def test_a_key_can_hand_over(stage: Start) -> None:
    one = stage(settings="[midi]\ntakeover_key = 108\n")
    one.peer.send(0x90, 108, 100)
    one.wait_for_notes()  # though no phrase was played
    one.peer.send(0x80, 108, 64)
    one.wait_for_state("playing")
    one.remote.send("mode", "listen")
    one.wait_for_state("listening")
    one.wait_for_silence()
