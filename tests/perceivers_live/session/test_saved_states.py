"""Musical states by name: loading returns what was saved, and invalid files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.rings import hidden_shape, ring_shapes
from engine.states import StateError, save_state, state_path
from perceivers_live.performer.performer import SavedState
from perceivers_live.session.saved_states import MAX_SILENCE, StateStore
from tests.perceivers_live.toys import SMALL, steady
from tests.perceivers_live.virtual_session import VirtualSession, phrase

MODEL, ANOTHER = "0123456789abcdef" * 4, "f" * 64


@pytest.fixture(scope="module")
def saved_state() -> SavedState:
    """A state as a performer saves it, with rings of a real model's shape in place of the toy's."""
    session = VirtualSession()
    session.receive(*phrase(0.03, 8, 0.2))
    session.run(session.now + 0.25)
    made, rng = session.performer.saved_state(session.now), np.random.default_rng(0)
    rings = [rng.normal(size=shape).astype(np.float32) for shape in (*ring_shapes(SMALL), hidden_shape(SMALL))]
    return made._replace(snapshot=made.snapshot._replace(rings=tuple(rings)))


@pytest.fixture
def states(tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "states", SMALL, MODEL)


def test_load_returns_the_saved_state(states: StateStore, saved_state: SavedState) -> None:
    states.save("verse 1", saved_state)
    loaded = states.load("verse 1")
    assert (loaded.seed, loaded.silence) == (saved_state.seed, saved_state.silence)
    assert loaded.silence == pytest.approx(0.25, abs=0.01)
    assert loaded.snapshot.history == saved_state.snapshot.history
    assert all(np.array_equal(a, b) for a, b in zip(loaded.snapshot.rings, saved_state.snapshot.rings, strict=True))


def test_save_overwrites_a_state_of_the_same_name(states: StateStore, saved_state: SavedState) -> None:
    states.save("a", saved_state)
    states.save("a", saved_state._replace(seed=7))
    assert states.load("a").seed == 7


def test_unknown_state_cannot_be_loaded(states: StateStore) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        states.load("verse 2")


def test_saved_states_are_listed_and_can_be_deleted(states: StateStore, saved_state: SavedState, tmp_path: Path) -> None:
    assert states.names() == []
    for name in ("verse 2", "a", "b.c"):
        states.save(name, saved_state)
    assert states.names() == ["a", "b.c", "verse 2"]
    states.delete("b.c")
    assert states.names() == ["a", "verse 2"]
    with pytest.raises(StateError, match=r"^b.c: there is no such state; there are: a, verse 2$"):
        states.delete("b.c")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, 5, None])
def test_delete_refuses_invalid_names(states: StateStore, name: object) -> None:
    with pytest.raises(StateError, match="name"):
        states.delete(name)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, 5, None])
def test_check_save_and_load_refuse_invalid_names(states: StateStore, saved_state: SavedState, name: object) -> None:
    with pytest.raises(StateError, match="name"):
        states.check(name)
    with pytest.raises(StateError, match="name"):
        states.save(name, saved_state)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="name"):
        states.load(name)  # type: ignore[arg-type]


def test_state_of_another_model_is_refused(tmp_path: Path, saved_state: SavedState) -> None:
    StateStore(tmp_path, SMALL, ANOTHER).save("a", saved_state)
    with pytest.raises(StateError, match="another model"):
        StateStore(tmp_path, SMALL, MODEL).load("a")


@pytest.mark.parametrize(
    "extra",
    [
        {},
        *({"seed": seed, "silence": 0.0} for seed in (-1, 1 << 32, 1.5, "1", None, True, [1])),
        *({"seed": 1, "silence": silence} for silence in (-0.1, MAX_SILENCE + 0.1, "0", None, True, [0.0], 1e300)),
        {"seed": 1},
        {"silence": 1.0},
    ],
)
def test_invalid_seed_or_silence_is_refused(tmp_path: Path, saved_state: SavedState, extra: dict[str, object]) -> None:
    save_state(saved_state.snapshot, state_path(tmp_path, "a"), model=MODEL, **extra)
    with pytest.raises(StateError, match="its s"):
        StateStore(tmp_path, SMALL, MODEL).load("a")


def test_failing_save_keeps_the_history_and_the_plan() -> None:
    session = VirtualSession(steady())
    session.receive(*phrase())
    session.run(5.0, stop=lambda: session.player.planned() > 0)
    session.runtime.rings = broken  # type: ignore[method-assign]
    before = session.history()
    with pytest.raises(OSError, match="lost"):
        session.performer.saved_state(session.now)
    assert session.history() == before
    assert session.player.planned() > 0


def broken() -> list[np.ndarray]:
    raise OSError("the rings are lost")
