"""The echo guard: one bus used both ways, or a loop in the cabling, brings back what we sent. It must not be taken for what the
human plays, and must not be passed on for ever.

Only what is proven is ignored. The proof of a loop are notes that the machine itself sent: the newest ``PROOF`` of them have all
come back, after one and the same delay. What was passed through proves nothing, since the human may well play it again. While
there is a loop every message that was sent, passed through or not, excuses one that comes back after that delay.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from engine.midi import SUSTAIN

log = logging.getLogger(__name__)

WINDOW = 0.3  # seconds in which a message comes back, if it does
PROOF = 6  # notes of the machine's in a row that have come back prove a loop,
SUBJECTS = 2  # if they are of at least so many keys,
SPREAD = 0.02  # and their delays differ by no more than this, in seconds: a JACK period and what a busy machine adds
LATE = 0.06  # seconds that an echo may come later than the others, once a loop is proven: the machine may be busy
LOST = 4  # notes in a row that do not come back prove that there is no loop any more
SUSPICIOUS, WATCHED = 12, 16  # so many of the machine's newest so many notes have come back, whatever their delays
FASTEST = 50  # strikes of one key in a second: no human does that
MOST = 512  # messages that are waited for
ADVICE = "disconnect the output from the input, or set midi.input_channel to the keyboard's channel"

Subject = tuple[object, ...]


class _Sent(NamedTuple):
    time: float
    subject: Subject
    channel: int
    own: bool  # the machine's, not passed through
    note: bool


def subject_of(message: Sequence[int]) -> Subject:
    """What a channel message says, whatever its channel and velocity. A note-on of velocity 0 is a note-off."""
    kind = message[0] & 0xF0
    if kind in (0x80, 0x90):
        return kind == 0x90 and message[2] > 0, message[1]
    if kind == 0xB0 and message[1] == SUSTAIN:
        return kind, SUSTAIN, message[2] >= 64
    return kind, *message[1:]


class EchoGuard:
    """Told of every message that is sent, it knows which of those that come in are these. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[_Sent] = deque(maxlen=MOST)  # what has not come back, oldest first
        self._strikes: deque[tuple[float, Subject]] = deque(maxlen=FASTEST)  # that came in
        self._said: set[str] = set()
        self.echoes = 0  # that were ignored
        self._start_again()

    def _start_again(self) -> None:
        self._returned: deque[tuple[float, Subject]] = deque(maxlen=PROOF)  # delays of the machine's newest notes, in a row
        self._outcomes: deque[bool] = deque(maxlen=WATCHED)  # whether the machine's newest notes came back
        self._delay: float | None = None  # seconds; None: no loop is proven
        self._missed = 0  # notes in a row that did not come back, of those sent on these channels:
        self._channels: set[int] = set()  # that the loop is known to bring back
        self._excused: set[tuple[int, object]] = set()  # (channel, key or pedal) that went down in an echo that was ignored

    @property
    def established(self) -> bool:
        """Whether a loop is proven."""
        return self._delay is not None

    def forget(self) -> None:
        """The cabling is another now: nothing is proven."""
        with self._lock:
            self._sent.clear()
            self._start_again()

    def sent(self, now: float, message: Sequence[int], *, own: bool = True) -> None:
        """A channel message is being sent. ``own``: the machine's; else one of the human's, passed through."""
        if not 0x80 <= message[0] < 0xF0:
            return
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        with self._lock:
            self._expire(now)
            self._sent.append(_Sent(now, subject_of(message), channel, own, kind in (0x80, 0x90)))

    def is_echo(self, now: float, message: Sequence[int]) -> bool:
        """Whether this channel message is one of ours that comes back, to be ignored. Each that was sent excuses one."""
        subject = subject_of(message)
        with self._lock:
            self._expire(now)
            self._judge_rate(now, message, subject)
            sent = next((one for one in self._sent if one.subject == subject and self._fits(now - one.time)), None)
            if sent is None:
                return False
            self._sent.remove(sent)
            proven = self._delay is not None
            self._learn(now - sent.time, sent)
            excused = proven and self._may_excuse(message, subject)
            self.echoes += excused
            return excused

    def _fits(self, delay: float) -> bool:
        """Whether a message can come back after so long."""
        return 0 <= delay <= WINDOW if self._delay is None else -SPREAD <= delay - self._delay <= LATE

    def _may_excuse(self, message: Sequence[int], subject: Subject) -> bool:
        """A key or pedal that went down before the loop was proven was taken for the human's: so is its coming up."""
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        if kind in (0x80, 0x90):
            down, what = bool(subject[0]), (channel, subject[1])
        elif kind == 0xB0 and message[1] == SUSTAIN:
            down, what = bool(subject[2]), (channel, "pedal")
        else:
            return True
        if down:
            self._excused.add(what)
            return True
        known = what in self._excused
        self._excused.discard(what)
        return known

    def _learn(self, delay: float, sent: _Sent) -> None:
        """One that was sent came back."""
        if sent.note and sent.channel in self._channels:
            self._missed = 0
        if not (sent.own and sent.note):
            return
        self._returned.append((delay, sent.subject))
        self._outcomes.append(True)
        delays = [one for one, _ in self._returned]
        if self._delay is not None:
            self._delay = median(delays)
            self._channels.add(sent.channel)
            return
        keys = {subject[1] for _, subject in self._returned}
        if len(delays) == PROOF and len(keys) >= SUBJECTS and max(delays) - min(delays) <= SPREAD:
            self._delay, self._missed = median(delays), 0
            self._channels.add(sent.channel)
            self._say("proven", f"the output comes back on the input: its echoes are ignored; {ADVICE}")
        elif len(self._outcomes) == WATCHED and sum(self._outcomes) >= SUSPICIOUS:
            self._say("suspected", f"the output seems to come back on the input, which cannot be told for certain: {ADVICE}")

    def _expire(self, now: float) -> None:
        """What has not come back by now never will."""
        while self._sent and self._sent[0].time < now - WINDOW - LATE:
            missed = self._sent.popleft()
            if not missed.note:
                continue
            if missed.own:
                self._returned.clear()
                self._outcomes.append(False)
            self._missed += self._delay is not None and missed.channel in self._channels
            if self._missed >= LOST:
                log.info("the output no longer comes back on the input")
                self._start_again()

    def _judge_rate(self, now: float, message: Sequence[int], subject: Subject) -> None:
        """Something that is passed on for ever comes in faster than anybody plays, if it is not slow in coming."""
        if message[0] & 0xF0 != 0x90 or not message[2] or self._delay is not None:
            return
        self._strikes.append((now, subject))
        first, struck = self._strikes[0]
        if len(self._strikes) == FASTEST and now - first < 1.0 and all(one == struck for _, one in self._strikes):
            self._say("suspected", f"a key is struck {FASTEST} times a second, as if it were passed on for ever: {ADVICE}")

    def _say(self, what: str, text: str) -> None:
        """Once is enough, and nothing is suspected of what is proven."""
        if not self._said & {what, "proven"}:
            log.warning("%s", text)
        self._said.add(what)
