"""The file of MIDI bindings: strict reading, atomic writing."""

import queue
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.folders import config_folder
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.midi_map_file import NOT_BINDABLE, Binding, MidiMapError, midi_map_path, read, write
from perceivers_live.controls.registry import Controls
from tests.perceivers_live.controls.midi_maps import WAIT, cc, feed_all


def test_the_file_is_in_the_users_configuration_folder() -> None:
    assert midi_map_path() == config_folder() / "midi_map.toml"


def test_bindings_are_unchanged_after_write_and_read(file: Path) -> None:
    bindings = [
        Binding("temperature", 20),
        Binding("seed", 21, 16, low=5, high=-1),
        Binding("mode", 1, 1, low="listen"),
        Binding("hold", 127 - 8, 2, high=False),
        Binding("pace", 66, 0, low=0.1, high=0.3),
        Binding("takeover", 30, 3),
    ]
    write(file, bindings)
    assert read(file, {"takeover"}) == bindings
    assert [path.name for path in file.parent.iterdir()] == ["midi_map.toml"]


def test_missing_file_is_an_empty_map(bound: Callable[..., MidiMap], file: Path) -> None:
    assert bound().bindings == ()
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[binding]]\ntarget = 'density'\n\ncc = 128", ":4: binding 1: cc: found 128, allowed 0..127 (int)"),
        ("[[binding]]\ntarget = 'density'\ncc = 1.0", ":3: binding 1: cc: found 1.0, allowed 0..127 (int)"),
        ("[[binding]]\ntarget = 'density'\ncc = true", ":3: binding 1: cc: found True, allowed 0..127 (int)"),
        ("[[binding]]\ntarget = 'density'\ncc = 64", ":3: binding 1: cc: found 64, which is sustain"),
        ("[[binding]]\ntarget = 'density'\ncc = 123", ":3: binding 1: cc: found 123, which is a channel mode message"),
        ("[[binding]]\ntarget = 'density'\ncc = 1\nchannel = 17", ":4: binding 1: channel: found 17, allowed 0..16 (int)"),
        ("# top\n[[binding]]\ncc = 1", ":2: binding 1: target is missing"),
        ("[[binding]]\ntarget = 'density'", ":1: binding 1: cc is missing"),
        (
            "[[binding]]\ncc = 1\ntarget = 'densty'",
            ":3: binding 1: target: found 'densty', allowed a control or a command; nearest control is density",
        ),
        (
            "[[binding]]\ntarget = 'density'\ncc = 1\nlow = -1.5",
            ":4: binding 1: low: density: found -1.5, allowed -1.0..1.0 (float)",
        ),
        (
            "[[binding]]\ntarget = 'mode'\ncc = 1\nhigh = 1",
            f":4: binding 1: high: mode: found 1, allowed {CONTROLS['mode'].allowed} (choice)",
        ),
        (
            "[[binding]]\ntarget = 'takeover'\ncc = 1\nhigh = 1",
            ":4: binding 1: high: found 1, but a command has no range",
        ),
        (
            "[[binding]]\ntarget = 'density'\ncc = 1\n[[binding]]\nchanel = 1",
            ":5: binding 2: chanel: unknown key, found 1; nearest is channel",
        ),
        (
            "[[binding]]\ntarget = 'density'\ncc = 1\n[[binding]]\ncc = 1\ntarget = 'dynamics'",
            ":5: binding 2: cc: 1 on channel 0 is bound already",
        ),
        ("[binding]\ncc = 1", ": found binding = {'cc': 1}, allowed only [[binding]]"),
        ("binding = [1]", ": binding 1: found 1, allowed only as [[binding]]"),
        ("density = 1", ": found density, allowed only [[binding]]"),
        (
            "[[binding]]\ntarget = 1\ncc = 1",
            ":2: binding 1: target: found 1, allowed a control or a command; nearest control is ",
        ),
        ("[[binding]]\ncc 1", ":2: not valid TOML: "),
        ("x = '\x00'", ":1: not valid TOML: "),
    ],
)
def test_error_names_the_line_and_the_allowed_values(file: Path, text: str, message: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(MidiMapError) as refused:
        read(file, {"takeover"})
    assert str(refused.value).startswith(f"{file}{message}")
    assert str(refused.value).isprintable()


def test_a_broken_file_is_set_aside_and_the_map_starts_empty(
    controls: Controls, file: Path, learnt: "queue.SimpleQueue[Binding]"
) -> None:
    for count, text in enumerate(("[[binding", "[[binding]]\ncc = 300"), 1):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        midi_map = MidiMap(controls, path=file, on_learnt=learnt.put)
        assert midi_map.bindings == ()
        assert midi_map.error is not None
        assert midi_map.error.startswith(f"{file}:")
        assert midi_map.error.endswith(f"renamed to midi_map.broken-{count}.toml")
        assert midi_map.error.isprintable()
        assert (file.parent / f"midi_map.broken-{count}.toml").read_text() == text
        assert not file.exists()
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    learnt.get(timeout=WAIT)
    assert len(read(file)) == 1


def test_broken_file_that_cannot_be_renamed_is_not_overwritten(
    controls: Controls, file: Path, learnt: "queue.SimpleQueue[Binding]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    file.parent.mkdir()
    file.write_text("[[binding")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        midi_map = MidiMap(controls, path=file, on_learnt=learnt.put)
    assert midi_map.error is not None
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    learnt.get(timeout=WAIT)
    assert file.read_text() == "[[binding"


def test_changes_of_the_file_by_others_are_kept_and_used(
    bound: Callable[..., MidiMap], file: Path, learnt: "queue.SimpleQueue[Binding]"
) -> None:
    removed_here, removed_there, edited = Binding("seed", 21, 1), Binding("pace", 22), Binding("density", 23, low=0.0)
    midi_map = bound(removed_here, removed_there, edited)
    edited_there, added_there = Binding("density", 23, low=0.5), Binding("variety", 24)
    write(file, [removed_here, edited_there, added_there])  # by hand, or by another daemon
    midi_map.learn("temperature", 0.0)
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    added_here = learnt.get(timeout=WAIT)
    assert set(midi_map.bindings) == set(read(file)) == {removed_here, edited_there, added_there, added_here}
    assert midi_map.unlearn("seed") == 1
    assert set(midi_map.bindings) == set(read(file)) == {edited_there, added_there, added_here}


def test_file_broken_by_others_is_not_overwritten(
    bound: Callable[..., MidiMap], file: Path, learnt: "queue.SimpleQueue[Binding]"
) -> None:
    midi_map = bound(Binding("seed", 21, 1))
    reported: list[str] = []
    midi_map.on_fault = lambda error: reported.append(str(error))
    file.write_text("[[binding")
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    learnt.get(timeout=WAIT)
    assert file.read_text() == "[[binding"
    assert len(reported) == 1
    assert reported[0].startswith(f"{file}:1")
    file.unlink()
    midi_map.unlearn("seed")
    assert read(file) == [Binding("density", 20, 1)]


def test_unwritable_folder_only_prevents_saving(controls: Controls, tmp_path: Path, learnt: "queue.SimpleQueue[Binding]") -> None:
    (tmp_path / "user").write_text("no folder")
    midi_map = MidiMap(controls, path=tmp_path / "user" / "midi_map.toml", on_learnt=learnt.put)
    assert midi_map.error is None  # there is just no file
    reported: list[str] = []
    midi_map.on_fault = lambda error: reported.append(str(error))
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    assert learnt.get(timeout=WAIT) == Binding("density", 20, 1)
    assert len(reported) == 1
    assert "cannot be written" in reported[0]
    feed_all(midi_map, cc(20, 0))
    assert controls.get("density") == -1.0
    with pytest.raises(MidiMapError, match="cannot be written"):
        midi_map.unlearn("density")


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from(["'density'", "'mode'", "'takeover'", "'x'", "1", "[]"]),
        "cc": st.sampled_from(["20", "64", "-1", "1e9", "'a'", "true", "9" * 5000]),
        "channel": st.sampled_from(["0", "16", "17", "{}"]),
        "low": st.sampled_from(["0.5", "nan", "'listen'", "[[1]]"]),
        "x": st.just("1979-05-27"),
    },
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.lists(ENTRY, max_size=3).map(
        lambda entries: "\n".join(
            line for entry in entries for line in ("[[binding]]", *(f"{key} = {value}" for key, value in entry.items()))
        ).encode()
    )
)
def test_any_file_content_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "midi_map.toml"
    file.write_bytes(content)
    try:
        bindings = read(file, {"takeover"})
    except MidiMapError as error:
        assert str(error).isprintable()
    else:
        assert all(binding.number not in NOT_BINDABLE for binding in bindings)
        write(file, bindings)
        assert read(file, {"takeover"}) == bindings


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        (Binding("takeover", 66), "CC 66 on any channel is bound to takeover"),
        (Binding("temperature", 20, channel=3), "CC 20 on channel 3 is bound to temperature"),
        (Binding("temperature", 20, low=1.5), "CC 20 on any channel is bound to temperature, from 1.5 to its limit"),
    ],
)
def test_binding_is_described_in_words(binding: Binding, text: str) -> None:
    assert str(binding) == text
