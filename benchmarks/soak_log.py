"""Reads the log of `soak_daemon.py`, and tells from it who is to blame for notes that are lost or hang: the daemon or JACK."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from tests.live.recording import Message, hanging_notes, notes_on, pedal_down


class Missing(NamedTuple):
    """Notes that should have arrived, or ended, and did not: because of the daemon; because the driver did not deliver a message
    to the daemon; because the driver accepted a message from the daemon and it did not arrive.
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
            to = self._delivered if direction == "in" else self._accepted
            to.append(Message(float(when), *bytes.fromhex(message)))


def missing_strikes(
    sent: Iterable[Message], delivered: Iterable[Message], accepted: Iterable[Message], arrived: Iterable[Message]
) -> Missing:
    """Strikes of the human's that were to be passed on, each with the strikes of the same stretch at the following stations."""
    stations = [Counter((one.status, one.data1) for one in notes_on(station)) for station in (sent, delivered, accepted, arrived)]
    played, received, passed_on, heard = ({key: at[key] for key in stations[0]} for at in stations)
    lost = sum(max(0, received[key] - passed_on[key]) for key in played)
    undelivered = sum(max(0, played[key] - received[key]) for key in played)
    return Missing(lost, undelivered, sum(max(0, passed_on[key] - heard[key]) for key in played))


def hanging(sounding: Collection[int], log: PortLog, *, excused: bool = True) -> Missing:
    """Of what sounds at the synthesizer (pitches; the pedal as -1): what the daemon has not released. ``excused``: it need not
    release what the human still holds, as far as it knows.
    """
    unreleased = hanging_notes(log.accepted) | ({-1} if pedal_down(log.accepted) else set())
    held = hanging_notes(log.delivered) | ({-1} if pedal_down(log.delivered) else set())
    excuse = held if excused else set()
    sounds = set(sounding)
    return Missing(len(sounds & unreleased - excuse), len(sounds & unreleased & excuse), len(sounds - unreleased))
