"""A player, what it sends and what it reports."""

from __future__ import annotations

import pytest

from engine.events import Timed
from perceivers_live.player.ledger import Ledger
from perceivers_live.player.player import Player
from tests.perceivers_live.receiver import Synthesizer, Watcher


@pytest.fixture
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture
def heard() -> list[Timed]:
    return []


@pytest.fixture
def player(synthesizer: Synthesizer, heard: list[Timed]) -> Player:
    player = Player(Ledger(synthesizer.send), Watcher(heard.append))
    player.begin()
    return player
