"""Echo guard: ignores our own output when a MIDI loop brings it back to our input.

A loop arises if one bus is used in both directions, or from the cabling. Its messages must not count as human playing, and must
not be sent again by ``thru``.

Echoes are ignored only after a loop is proven: the machine's newest ``PROOF`` notes have all come back after the same delay.
Messages passed through do not count as proof, since the human can play the same notes again. While a loop is proven, each sent
message (of the machine or passed through) cancels one message that comes back after that delay, or later if the computer or the
MIDI system stalled.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from engine.keys import PEDAL_DOWN
from engine.midi import SUSTAIN

log = logging.getLogger(__name__)

WINDOW = 0.3  # seconds within which an echo comes back
PROOF = 6  # consecutive notes of the machine that must come back to prove a loop,
PROOF_KEYS = 2  # of at least this many keys,
SPREAD = 0.02  # with delays that differ by at most this, in seconds: a JACK period and scheduling delays
LATE = 0.06  # an echo of a proven loop that is later than usual by more than this, in seconds, was held up by a stall
GONE_NOTES, GONE_SECONDS = 4, 1.0  # so many consecutive notes, over so many seconds, that do not come back end a loop
SUSPICIOUS, RECENT_NOTES = 12, 16  # a warning is logged if 12 of the machine's newest 16 notes came back, after any delays
MAX_HUMAN_REPEATS = 50  # note-ons of one key in a second; more than a human can play
MAX_SENT = 512  # sent messages that are kept for comparison
ADVICE = "disconnect the output from the input, or set midi.input_channel to the keyboard's channel"

Subject = tuple[object, ...]


class _Sent(NamedTuple):
    time: float
    subject: Subject
    channel: int
    own: bool  # sent by the machine, not passed through
    note: bool


def subject_of(message: Sequence[int]) -> Subject:
    """The content of a channel message without channel and velocity. A note-on of velocity 0 is a note-off."""
    kind = message[0] & 0xF0
    if kind in (0x80, 0x90):
        return kind == 0x90 and message[2] > 0, message[1]
    if kind == 0xB0 and message[1] == SUSTAIN:
        return kind, SUSTAIN, message[2] >= PEDAL_DOWN
    return kind, *message[1:]


class EchoGuard:
    """Compares incoming messages with sent ones to find echoes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[_Sent] = deque(maxlen=MAX_SENT)  # messages that have not come back, oldest first
        self._strikes: deque[tuple[float, Subject]] = deque(maxlen=MAX_HUMAN_REPEATS)  # incoming note-ons
        self._logged: set[str] = set()
        self.echoes = 0  # number of echoes ignored
        self._reset()

    def _reset(self) -> None:
        self._returned: deque[tuple[float, Subject]] = deque(maxlen=PROOF)  # delays of its newest notes that came back
        self._outcomes: deque[bool] = deque(maxlen=RECENT_NOTES)  # whether the machine's newest notes came back
        self._delay: float | None = None  # seconds; None: no loop is proven
        self._missed: list[float] = []  # times of consecutive notes on ``_channels`` that did not come back
        self._channels: set[int] = set()  # channels known to come back through the loop
        self._ignored_presses: set[tuple[int, object]] = set()  # (channel, key or pedal) whose press was ignored as an echo

    @property
    def established(self) -> bool:
        """Whether a loop is proven."""
        return self._delay is not None

    def forget(self) -> None:
        """Resets everything, after the cabling has changed."""
        with self._lock:
            self._sent.clear()
            self._reset()

    def sent(self, now: float, message: Sequence[int], *, own: bool = True) -> None:
        """Registers a channel message that is being sent. ``own``: by the machine; else passed through from the human."""
        if not 0x80 <= message[0] < 0xF0:
            return
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        with self._lock:
            self._expire(now)
            self._sent.append(_Sent(now, subject_of(message), channel, own, kind in (0x80, 0x90)))

    def is_echo(self, now: float, message: Sequence[int]) -> bool:
        """Whether this incoming channel message is an echo to be ignored. Each sent message cancels at most one."""
        subject = subject_of(message)
        with self._lock:
            self._expire(now)
            self._judge_rate(now, message, subject)
            sent = self._source(now, subject)
            if sent is None:
                return False
            self._sent.remove(sent)
            proven = self._delay is not None
            self._learn(now - sent.time, sent)
            ignored = proven and self._should_ignore(message, subject)
            self.echoes += ignored
            return ignored

    def _source(self, now: float, subject: Subject) -> _Sent | None:
        """The sent message that an incoming one can be the echo of: the oldest, or that whose delay is nearest to the loop's."""
        same = [one for one in self._sent if one.subject == subject]
        delay = self._delay
        if delay is None:
            return next((one for one in same if 0 <= now - one.time <= WINDOW), None)
        fitting = [one for one in same if now - one.time >= delay - SPREAD]
        return min(fitting, key=lambda one: abs(now - one.time - delay), default=None)

    def _should_ignore(self, message: Sequence[int], subject: Subject) -> bool:
        """Whether to ignore an echo. A release is kept if its press came before the proof and counted as the human's."""
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        if kind in (0x80, 0x90):
            down, what = bool(subject[0]), (channel, subject[1])
        elif kind == 0xB0 and message[1] == SUSTAIN:
            down, what = bool(subject[2]), (channel, "pedal")
        else:
            return True
        if down:
            self._ignored_presses.add(what)
            return True
        known = what in self._ignored_presses
        self._ignored_presses.discard(what)
        return known

    def _learn(self, delay: float, sent: _Sent) -> None:
        """Updates the statistics with a message that came back after ``delay`` seconds."""
        if sent.note and sent.channel in self._channels:
            self._missed.clear()
        if not (sent.own and sent.note) or (self._delay is not None and delay > self._delay + LATE):
            return
        self._returned.append((delay, sent.subject))
        self._outcomes.append(True)
        delays = [one for one, _ in self._returned]
        if self._delay is not None:
            self._delay = median(delays)
            self._channels.add(sent.channel)
            return
        keys = {subject[1] for _, subject in self._returned}
        if len(delays) == PROOF and len(keys) >= PROOF_KEYS and max(delays) - min(delays) <= SPREAD:
            self._delay = median(delays)
            self._channels.add(sent.channel)
            self._say("proven", f"MIDI loop: the output comes back on the input; its echoes are ignored; {ADVICE}")
        elif len(self._outcomes) == RECENT_NOTES and sum(self._outcomes) >= SUSPICIOUS:
            self._say("suspected", f"possible MIDI loop: the output seems to come back on the input; {ADVICE}")

    def _expire(self, now: float) -> None:
        """Drops messages that are too old to come back."""
        while self._sent and self._sent[0].time < now - WINDOW - LATE:
            missed = self._sent.popleft()
            if not missed.note:
                continue
            if missed.own:
                self._returned.clear()
                self._outcomes.append(False)
            if self._delay is not None and missed.channel in self._channels:
                self._missed.append(missed.time)
            if len(self._missed) >= GONE_NOTES and self._missed[-1] - self._missed[0] >= GONE_SECONDS:
                log.info("the MIDI loop is gone: the output no longer comes back on the input")
                self._reset()

    def _judge_rate(self, now: float, message: Sequence[int], subject: Subject) -> None:
        """Warns of a key that is struck faster than a human can play: ``thru`` may be sending in a loop."""
        if message[0] & 0xF0 != 0x90 or not message[2] or self._delay is not None:
            return
        self._strikes.append((now, subject))
        first, struck = self._strikes[0]
        if len(self._strikes) == MAX_HUMAN_REPEATS and now - first < 1.0 and all(one == struck for _, one in self._strikes):
            self._say("suspected", f"possible MIDI loop: a key is struck {MAX_HUMAN_REPEATS} times a second; {ADVICE}")

    def _say(self, what: str, text: str) -> None:
        """Logs a warning once; a suspicion is not logged after a proof."""
        if not self._logged & {what, "proven"}:
            log.warning("%s", text)
        self._logged.add(what)
