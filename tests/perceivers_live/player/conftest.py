"""A player, its output and what it reports."""

from __future__ import annotations

import pytest

from engine.events import Timed
from perceivers_live.player.ledger import Ledger
from perceivers_live.player.player import Player
from tests.perceivers_live.receiver import RecordingObserver, Synthesizer


@pytest.fixture
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture
def sounded() -> list[Timed]:
    return []


@pytest.fixture
def player(synthesizer: Synthesizer, sounded: list[Timed]) -> Player:
    player = Player(Ledger(synthesizer.send), RecordingObserver(sounded.append))
    player.begin()
    return player
