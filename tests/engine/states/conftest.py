"""Fixtures of the tests of saved states."""

from __future__ import annotations

import pytest

from engine.engine import Snapshot
from engine.states import (
    save_state,
)
from tests.engine.states.snapshots import MODEL, made_up


@pytest.fixture(scope="module")
def state() -> Snapshot:
    return made_up(60, kept=50)


@pytest.fixture(scope="module")
def whole(state: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "state"
    save_state(state, path, model=MODEL, controls={"temperature": 1.1})
    return path.read_bytes()
