"""Reads the log of `soak_daemon.py` and finds out whether the daemon or JACK caused lost and hung notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from tests.live.recording import Message, hanging_notes, notes_on, pedal_down


class Missing(NamedTuple):
    """Numbers of lost or hung notes by cause. ``daemon``: the daemon. ``undelivered``: the driver did not deliver a message to
    the daemon. ``unsent``: the driver accepted a message from the daemon, and it did not arrive.
    """

    daemon: int = 0
    undelivered: int = 0
    unsent: int = 0


class PortLog:
    """Reads one daemon's log as it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._delivered: list[Message] = []
        self._accepted: list[Message] = []

    @property
    def delivered(self) -> list[Message]:
        """The messages that the daemon has received."""
        self._read()
        return self._delivered

    @property
    def accepted(self) -> list[Message]:
        """The messages that the daemon has sent."""
        self._read()
        return self._accepted

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, _, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + 1 if whole else 0
        for line in whole.decode().splitlines():
            when, direction, message = line.split(" ", 2)
            messages = self._delivered if direction == "in" else self._accepted
            messages.append(Message(float(when), *bytes.fromhex(message)))


def missing_notes(
    sent: Iterable[Message], delivered: Iterable[Message], accepted: Iterable[Message], arrived: Iterable[Message]
) -> Missing:
    """Counts the human's note-ons that were not passed through. Parameters: the messages of the same period as sent by the
    keyboard, delivered to the daemon, accepted from the daemon, and arrived at the synthesizer.
    """
    counts = [
        Counter((note_on.status, note_on.data1) for note_on in notes_on(messages))
        for messages in (sent, delivered, accepted, arrived)
    ]
    played, received, passed_on, heard = ({key: count[key] for key in counts[0]} for count in counts)
    lost = sum(max(0, received[key] - passed_on[key]) for key in played)
    undelivered = sum(max(0, played[key] - received[key]) for key in played)
    return Missing(lost, undelivered, sum(max(0, passed_on[key] - heard[key]) for key in played))


def hanging(sounding: Collection[int], log: PortLog, *, excused: bool = True) -> Missing:
    """Counts hung notes. ``sounding``: the pitches that sound at the synthesizer; -1: the pedal. ``excused``: notes that the
    human still holds according to the messages delivered to the daemon do not count as hung by the daemon, but as
    ``undelivered``.
    """
    unreleased = hanging_notes(log.accepted) | ({-1} if pedal_down(log.accepted) else set())
    held = hanging_notes(log.delivered) | ({-1} if pedal_down(log.delivered) else set())
    excuse = held if excused else set()
    sounds = set(sounding)
    return Missing(len(sounds & unreleased - excuse), len(sounds & unreleased & excuse), len(sounds - unreleased))
