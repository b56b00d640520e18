"""Planned notes."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON
from perceivers_live.player.player import Planned


def on(time_: float, serial: int, pitch: int, velocity: int = 82) -> Planned:
    return Planned(time_, serial, NOTE_ON + pitch, velocity)


def off(time_: float, serial: int, pitch: int) -> Planned:
    return Planned(time_, serial, NOTE_OFF + pitch)
