"""Musical states by name: what comes back is what was saved, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.rings import hidden_shape, ring_shapes
from engine.states import StateError, save_state, state_path
from perceivers_live.performer.performer import SavedState
from perceivers_live.session.saved_states import MAX_SILENCE, StateStore
from tests.perceivers_live.toys import SMALL, steady
from tests.perceivers_live.virtual_stage import Stage, phrase

MODEL, ANOTHER = "0123456789abcdef" * 4, "f" * 64


@pytest.fixture(scope="module")
def saved_state() -> SavedState:
    """What a performer would save, the toy's rings replaced by a real model's kind."""
    stage = Stage()
    stage.hear(*phrase(0.03, 8, 0.2))
    stage.run(stage.now + 0.25)
    made, rng = stage.performer.saved_state(stage.now), np.random.default_rng(0)
    rings = [rng.normal(size=shape).astype(np.float32) for shape in (*ring_shapes(SMALL), hidden_shape(SMALL))]
    return made._replace(snapshot=made.snapshot._replace(rings=tuple(rings)))


@pytest.fixture
def states(tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "states", SMALL, MODEL)


def test_what_is_loaded_is_what_was_saved(states: StateStore, saved_state: SavedState) -> None:
    states.save("verse 1", saved_state)
    loaded = states.load("verse 1")
    assert (loaded.seed, loaded.silence) == (saved_state.seed, saved_state.silence)
    assert loaded.silence == pytest.approx(0.25, abs=0.01)
    assert loaded.snapshot.history == saved_state.snapshot.history
    assert all(np.array_equal(a, b) for a, b in zip(loaded.snapshot.rings, saved_state.snapshot.rings, strict=True))


def test_a_memory_is_saved_again_under_the_same_name(states: StateStore, saved_state: SavedState) -> None:
    states.save("a", saved_state)
    states.save("a", saved_state._replace(seed=7))
    assert states.load("a").seed == 7


def test_what_was_never_saved_cannot_be_loaded(states: StateStore) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        states.load("verse 2")


def test_what_is_kept_is_listed_and_can_be_deleted(states: StateStore, saved_state: SavedState, tmp_path: Path) -> None:
    assert states.names() == []
    for name in ("verse 2", "a", "b.c"):
        states.save(name, saved_state)
    assert states.names() == ["a", "b.c", "verse 2"]
    states.delete("b.c")
    assert states.names() == ["a", "verse 2"]
    with pytest.raises(StateError, match=r"^b.c: there is no such state; there are: a, verse 2$"):
        states.delete("b.c")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, 5, None])
def test_nothing_but_a_state_is_deleted(states: StateStore, name: object) -> None:
    with pytest.raises(StateError, match="name"):
        states.delete(name)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, 5, None])
def test_names_that_can_be_no_file_are_refused(states: StateStore, saved_state: SavedState, name: object) -> None:
    with pytest.raises(StateError, match="name"):
        states.check(name)
    with pytest.raises(StateError, match="name"):
        states.save(name, saved_state)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="name"):
        states.load(name)  # type: ignore[arg-type]


def test_another_models_memory_is_refused(tmp_path: Path, saved_state: SavedState) -> None:
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
def test_what_no_performer_has_saved_is_refused(tmp_path: Path, saved_state: SavedState, extra: dict[str, object]) -> None:
    save_state(saved_state.snapshot, state_path(tmp_path, "a"), model=MODEL, **extra)
    with pytest.raises(StateError, match="its s"):
        StateStore(tmp_path, SMALL, MODEL).load("a")


def test_a_state_that_cannot_be_read_costs_nothing_of_the_music() -> None:
    stage = Stage(steady())
    stage.hear(*phrase())
    stage.run(5.0, stop=lambda: stage.player.planned() > 0)
    stage.runtime.rings = broken  # type: ignore[method-assign]
    before = stage.history()
    with pytest.raises(OSError, match="lost"):
        stage.performer.saved_state(stage.now)
    assert stage.history() == before
    assert stage.player.planned() > 0


def broken() -> list[np.ndarray]:
    raise OSError("the rings are lost")
