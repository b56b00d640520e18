"""A valid state name gives a file in the states folder; other names are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.engine import Snapshot
from engine.states import (
    StateError,
    load_state,
    save_state,
    state_path,
)
from tests.engine.states.snapshots import MODEL, TINY, same


@pytest.mark.parametrize(
    "name", ["a", "Blue in C", "take-2_b", "1.0", "x" * 64, "-", "_", "con1", "nulls", "com", "a.con", "concert.1"]
)
def test_plain_names_are_files_in_the_folder(tmp_path: Path, state: Snapshot, name: str) -> None:
    path = state_path(tmp_path, name)
    assert path.parent == tmp_path
    save_state(state, path, model=MODEL)
    assert len(list(tmp_path.iterdir())) == 1
    assert same(load_state(path, TINY, model=MODEL)[0], state)


PATHS = [".", "..", "../up", "..\\up", "/etc/passwd", "C:\\x", "C:x", "a/b", "a\\b", "~", "~root", ".hidden", "a."]
SPECIAL_CHARACTERS = ["a:b", "a*", "a?", "$HOME", "%TEMP%", "a|b", "é", "\uff0e\uff0e", "a\u2044b", "\u202egnp", "\udcff"]
DEVICES = ["con", "CON", "Nul", "nul.txt", "aux.a.b", "prn", "com1", "LPT9", "com0.x", "con .x", "conin$", "com\u00b9"]
BLANKS = ["", " ", "\n", " a", "a ", "a\n", "a\0b", "x" * 65]
NOT_STRINGS: list[object] = [None, 3, 1.5, True, b"bytes", ["a"], {}]


@pytest.mark.parametrize("name", [*PATHS, *SPECIAL_CHARACTERS, *DEVICES, *BLANKS, *NOT_STRINGS])
def test_invalid_names_are_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(StateError) as caught:
        state_path(tmp_path, name)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@given(name=st.text(max_size=80))
def test_no_name_gives_a_path_outside_the_folder(name: str) -> None:
    folder = Path("/music/states")
    try:
        path = state_path(folder, name)
    except StateError:
        return
    assert Path(os.path.normpath(path)).parent == folder
    assert path.name == name + ".state"
    assert len(path.name.encode()) < 100
