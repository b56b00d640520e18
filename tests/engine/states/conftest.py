"""Fixtures of the tests of saved states."""

from __future__ import annotations

import pytest

from engine.engine import Snapshot
from engine.states import save_state
from tests.engine.states.snapshots import MODEL, random_state


@pytest.fixture(scope="module")
def state() -> Snapshot:
    return random_state(60, kept=50)


@pytest.fixture(scope="module")
def saved(state: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "state"
    save_state(state, path, model=MODEL, controls={"temperature": 1.1})
    return path.read_bytes()
