"""MIDI controllers: what they steer, how they are learnt, and the file they are kept in."""

import queue
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.folders import config_folder
from perceivers_live.controls.midi_map import LEARN_MOVEMENT, LEARN_TIMEOUT, NOT_LEARNABLE, MidiMap, control_value
from perceivers_live.controls.midi_map_file import NOT_BINDABLE, Binding, MidiMapError, midi_map_path, read, write
from perceivers_live.controls.registry import CONTROLS, Controls, Value

WAIT = 10.0  # seconds of real time, for what another thread does


def cc(number: int, value: int, channel: int = 1) -> tuple[int, int, int]:
    return (0xB0 | channel - 1, number, value)


@pytest.fixture
def controls() -> Controls:
    return Controls()


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "user" / "midi_map.toml"


@pytest.fixture
def learnt() -> "queue.SimpleQueue[Binding]":
    """What a map has told of, in order."""
    return queue.SimpleQueue()


@pytest.fixture
def bound(controls: Controls, calls: list[str], file: Path, learnt: "queue.SimpleQueue[Binding]") -> Callable[..., MidiMap]:
    """A map of the given bindings, with the commands `takeover` and `fail`."""

    def fail() -> None:
        raise RuntimeError("no engine")

    def make(*bindings: Binding) -> MidiMap:
        if bindings:
            write(file, bindings)
        commands = {"takeover": lambda: calls.append("takeover"), "fail": fail}
        made = MidiMap(controls, commands, file, on_learnt=learnt.put)
        assert made.error is None
        return made

    return make


def steer(midi_map: MidiMap, *messages: tuple[int, int, int]) -> list[bool]:
    return [midi_map.feed(0.0, message) for message in messages]


# Steering.


def test_a_fader_sweeps_the_whole_range_of_a_control(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("temperature", 20))
    taken = []
    for value in range(128):
        assert midi_map.feed(0.0, cc(20, value))
        taken.append(float(controls.get("temperature")))
    assert (taken[0], taken[-1]) == (CONTROLS["temperature"].low, CONTROLS["temperature"].high)
    steps = [after - before for before, after in pairwise(taken)]
    assert steps == pytest.approx([1.0 / 127] * 127)


@pytest.mark.parametrize(
    ("binding", "value", "taken"),
    [
        (Binding("density", 1, low=0.5, high=-0.5), 0, 0.5),  # inverted
        (Binding("density", 1, low=0.5, high=-0.5), 127, -0.5),
        (Binding("density", 1, low=0.0, high=0.0), 99, 0.0),
        (Binding("temperature", 1, low=1.0), 0, 1.0),  # one end given
        (Binding("temperature", 1, low=1.0), 127, 1.5),
        (Binding("max_polyphony", 1), 63, 16),  # 1 + 63/127 * 31 = 16.4
        (Binding("max_polyphony", 1, low=10, high=1), 127, 1),
        (Binding("seed", 1), 127, 2**31 - 1),
        (Binding("hold", 1), 63, False),
        (Binding("hold", 1), 64, True),
        (Binding("hold", 1, low=True, high=False), 63, True),
        (Binding("hold", 1, low=True, high=False), 64, False),
        (Binding("mode", 1), 0, CONTROLS["mode"].choices[0]),
        (Binding("mode", 1), 127, CONTROLS["mode"].choices[-1]),
        (Binding("mode", 1, low="listen", high="respond"), 0, "listen"),
        (Binding("mode", 1, low="listen", high="respond"), 127, "respond"),
    ],
)
def test_a_value_is_mapped_to_the_bindings_range(
    bound: Callable[..., MidiMap], controls: Controls, binding: Binding, value: int, taken: Value
) -> None:
    midi_map = bound(binding)
    for before in (127 - value, value):
        assert midi_map.feed(0.0, cc(1, before))
    assert controls.get(binding.target) == taken
    assert type(controls.get(binding.target)) is type(taken)


@pytest.mark.parametrize("name", [name for name, control in CONTROLS.items() if control.kind == "choice"])
def test_the_zones_of_a_choice_are_equally_wide(bound: Callable[..., MidiMap], controls: Controls, name: str) -> None:
    midi_map = bound(Binding(name, 1))
    taken = []
    for value in range(128):
        midi_map.feed(0.0, cc(1, value))
        taken.append(controls.get(name))
    widths = [taken.count(choice) for choice in CONTROLS[name].choices]
    assert max(widths) - min(widths) <= 1
    assert taken == sorted(taken, key=CONTROLS[name].choices.index)


def test_a_command_runs_once_a_press(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    midi_map = bound(Binding("takeover", 30))
    assert steer(midi_map, cc(30, 0), cc(30, 63), cc(30, 64), cc(30, 100), cc(30, 127), cc(30, 64)) == [True] * 6
    assert calls == ["takeover"]
    steer(midi_map, cc(30, 0), cc(30, 127))
    assert calls == ["takeover", "takeover"]


def test_the_first_press_of_all_counts(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    steer(bound(Binding("takeover", 30)), cc(30, 127))
    assert calls == ["takeover"]


def test_a_command_that_fails_does_not_reach_the_driver(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound(Binding("fail", 30), Binding("density", 31))
    assert steer(midi_map, cc(30, 127), cc(31, 0)) == [True, True]


def test_a_binding_to_one_channel_comes_before_one_to_any(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("density", 20), Binding("dynamics", 20, channel=5))
    steer(midi_map, cc(20, 127, channel=5))
    assert (controls.get("density"), controls.get("dynamics")) == (0.0, 1.0)
    steer(midi_map, cc(20, 127, channel=16))
    assert controls.get("density") == 1.0


def test_what_is_not_bound_goes_on_to_the_music(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("density", 20, channel=2))
    others = [cc(20, 100), cc(21, 100, 2), cc(64, 127, 2), (0x91, 20, 100), (0xC1, 20), (0xE1, 20, 100), (0xF8,)]
    assert not any(midi_map.feed(0.0, message) for message in others)
    assert controls.snapshot().version == 0


def test_a_listener_hears_who_turned_the_control(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map, sources = bound(Binding("density", 20)), []
    controls.on_change(lambda name, value, source: sources.append(source))
    steer(midi_map, cc(20, 127))
    assert sources == [midi_map]


@settings(deadline=None)
@given(messages=st.lists(st.lists(st.integers(-1, 300), max_size=4) | st.tuples(st.just(0xB0), *[st.integers(0, 127)] * 2)))
def test_whatever_arrives_is_survived(messages: list[list[int]]) -> None:
    controls, learnt = Controls(), queue.SimpleQueue[Binding]()
    midi_map = MidiMap(controls, {}, on_learnt=learnt.put)
    midi_map.learn("density", 0.0)
    for message in messages:
        midi_map.feed(0.0, message)
    for binding in midi_map.bindings:
        assert binding.target == "density"
        assert binding.number not in NOT_LEARNABLE
        assert learnt.get(timeout=WAIT) == binding


@given(name=st.sampled_from(sorted(CONTROLS)), value=st.integers(0, 127), ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_controller_stays_within_the_bindings_range_and_reaches_its_ends(
    name: str, value: int, ends: tuple[float, float]
) -> None:
    control = CONTROLS[name]
    low, high = (
        control.clamp((round if control.kind != "float" else float)(control.low + share * (control.high - control.low)))
        for share in ends
    )
    binding = Binding(name, 7, low=low, high=high)
    bounds = binding.limits(control)
    assert min(bounds) <= control_value(control, binding, value) <= max(bounds)
    assert (control.clamp(control_value(control, binding, 0)), control.clamp(control_value(control, binding, 127))) == (low, high)


# Learning.


def test_the_next_controller_that_moves_is_learnt(
    bound: Callable[..., MidiMap], controls: Controls, file: Path, learnt: "queue.SimpleQueue[Binding]"
) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    steer(midi_map, cc(33, 64, 7), *(cc(33, 64 + step, 7) for step in range(1, LEARN_MOVEMENT)))
    assert midi_map.bindings == ()
    assert midi_map.feed(1.0, cc(33, 64 + LEARN_MOVEMENT, 7))
    assert midi_map.bindings == (Binding("density", 33, 7),)
    assert learnt.get(timeout=WAIT) == Binding("density", 33, 7)
    assert read(file) == [Binding("density", 33, 7)]  # saved by the time it is told of
    steer(midi_map, cc(33, 127, 7))
    assert controls.get("density") == 1.0


def test_a_trembling_fader_does_not_win(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    steer(midi_map, *(cc(10, 60 + turn % 3) for turn in range(200)))
    steer(midi_map, *(cc(11, turn) for turn in range(10)))
    assert [binding.number for binding in midi_map.bindings] == [11]


def test_a_button_is_learnt_by_a_press_and_does_not_run_at_once(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    midi_map = bound()
    midi_map.learn("takeover", 0.0)
    steer(midi_map, cc(50, 127), cc(50, 0))
    assert midi_map.bindings == (Binding("takeover", 50, 1),)
    assert calls == []
    steer(midi_map, cc(50, 127), cc(50, 0))
    assert calls == ["takeover"]


def test_where_a_fader_stood_before_is_remembered(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    steer(midi_map, cc(10, 60), cc(11, 60))
    midi_map.learn("density", 0.0)
    steer(midi_map, cc(10, 60), cc(11, 60 + LEARN_MOVEMENT))
    assert [binding.number for binding in midi_map.bindings] == [11]


@pytest.mark.parametrize("number", sorted(NOT_LEARNABLE))
def test_pedals_bank_select_and_channel_mode_are_not_learnt(bound: Callable[..., MidiMap], number: int) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    assert steer(midi_map, cc(number, 0), cc(number, 127), cc(number, 0)) == [False] * 3
    assert midi_map.bindings == ()
    steer(midi_map, cc(20, 0), cc(20, 127))
    assert midi_map.bindings == (Binding("density", 20, 1),), "it still waits for a controller"


def test_a_foot_can_hand_over_but_not_with_the_pedal_that_sustains(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    midi_map = bound()
    midi_map.learn("takeover", 0.0)
    assert steer(midi_map, cc(64, 0), cc(64, 127), cc(67, 0), cc(67, 127)) == [False, False, False, True]
    assert midi_map.bindings == (Binding("takeover", 67, 1),)
    steer(midi_map, cc(67, 0), cc(67, 127))
    assert calls == ["takeover"]


def test_the_fine_half_of_a_fader_does_not_win(bound: Callable[..., MidiMap]) -> None:
    """A 14-bit fader sends its fine half, 32 numbers above, with every message; that half races through all values."""
    midi_map = bound()
    midi_map.learn("density", 0.0)
    for value in range(0, 1000, 100):
        steer(midi_map, cc(7, value >> 7), cc(39, value & 127))
    assert [binding.number for binding in midi_map.bindings] == [7]


def test_an_older_binding_of_the_controller_is_replaced_and_steers_nothing_meanwhile(
    bound: Callable[..., MidiMap], controls: Controls
) -> None:
    midi_map = bound(Binding("density", 20), Binding("dynamics", 21))
    midi_map.learn("pace", 0.0)
    assert steer(midi_map, cc(20, 0), cc(20, 127)) == [True, True]
    assert (controls.get("density"), controls.get("pace")) == (0.0, CONTROLS["pace"].default)
    assert set(midi_map.bindings) == {Binding("dynamics", 21), Binding("pace", 20, 1)}
    steer(midi_map, cc(20, 127))
    assert (controls.get("density"), controls.get("pace")) == (0.0, CONTROLS["pace"].high)


def test_learning_is_given_up_in_time(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    midi_map.learn("density", 100.0)
    assert not midi_map.feed(100.0 + LEARN_TIMEOUT, cc(20, 0))
    assert midi_map.bindings == ()


def test_after_learning_was_given_up_the_old_bindings_steer(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("density", 20))
    midi_map.learn("dynamics", 0.0)
    midi_map.feed(LEARN_TIMEOUT, cc(20, 127))
    assert controls.get("density") == 1.0


def test_a_second_wish_takes_the_place_of_the_first(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    midi_map.learn("takeover", 1.0)
    steer(midi_map, cc(20, 0), cc(20, 127))
    assert midi_map.bindings == (Binding("takeover", 20, 1),)


def test_what_is_unlearnt_is_gone_from_the_file_too(bound: Callable[..., MidiMap], file: Path) -> None:
    midi_map = bound(Binding("density", 20), Binding("density", 21), Binding("takeover", 22))
    assert midi_map.unlearn("density") == 2
    assert midi_map.unlearn("density") == 0
    assert read(file, ["takeover"]) == [Binding("takeover", 22)]
    assert steer(midi_map, cc(20, 100), cc(22, 100)) == [False, True]


def test_an_unknown_name_is_neither_learnt_nor_unlearnt(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    for wish in (lambda: midi_map.learn("densty", 0.0), lambda: midi_map.unlearn("densty")):
        with pytest.raises(MidiMapError, match="unknown control or command 'densty', nearest is density"):
            wish()


def test_a_command_with_the_name_of_a_control_is_refused(controls: Controls) -> None:
    with pytest.raises(ValueError, match="density"):
        MidiMap(controls, {"density": lambda: None})


@pytest.mark.parametrize(
    "message",
    [
        [(101, 0), (100, 0), (6, 2)],  # a keyboard of several channels says its bend range when it is connected
        [(101, 0), (100, 6), (6, 15), (38, 0)],
        [(99, 1), (98, 40), (6, 0), (38, 0), (6, 127), (38, 127)],  # an NRPN knob
        [(99, 1), (98, 40), (96, 127), (97, 127), (96, 0), (97, 0)],
        [(98, 40), (99, 1), (6, 0), (6, 127)],
    ],
)
def test_parameter_messages_are_not_learnt(bound: Callable[..., MidiMap], message: list[tuple[int, int]]) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    assert not any(steer(midi_map, *(cc(number, value, 3) for number, value in message * 3)))
    assert midi_map.bindings == ()
    steer(midi_map, cc(6, 0), cc(6, 127))
    assert midi_map.bindings == (Binding("density", 6, 1),), "on another channel it is a slider"


@pytest.mark.parametrize("ending", [[(101, 127), (100, 127)], [(100, 127), (101, 127)], [(99, 127), (98, 127)], [(121, 0)]])
def test_after_a_parameter_message_the_data_slider_can_be_learnt(
    bound: Callable[..., MidiMap], ending: list[tuple[int, int]]
) -> None:
    midi_map = bound()
    steer(midi_map, cc(101, 0), cc(100, 0), cc(6, 2), *(cc(number, value) for number, value in ending))
    midi_map.learn("density", 0.0)
    steer(midi_map, cc(6, 2), cc(6, 60))
    assert midi_map.bindings == (Binding("density", 6, 1),)


def test_that_learning_was_given_up_is_said_once_and_why(bound: Callable[..., MidiMap]) -> None:
    midi_map, said = bound(), list[str]()
    midi_map.on_fault = lambda error: said.append(str(error))
    midi_map.learn("density", 0.0)
    midi_map.expire(LEARN_TIMEOUT - 0.1)
    assert said == []
    midi_map.expire(LEARN_TIMEOUT)
    midi_map.expire(LEARN_TIMEOUT)
    midi_map.learn("takeover", 100.0)
    for number in (64, 98):
        midi_map.feed(101.0, cc(number, 127))
    midi_map.feed(100.0 + LEARN_TIMEOUT, cc(20, 127))
    midi_map.expire(100.0 + LEARN_TIMEOUT)
    assert said == [
        "density: not learnt, no controller moved (20 s); start learning again",
        "takeover: not learnt, these controllers cannot be learnt: CC 64, CC 98 (20 s); start learning again",
    ]


def test_what_was_learnt_is_not_given_up(bound: Callable[..., MidiMap]) -> None:
    midi_map, said = bound(), list[MidiMapError]()
    midi_map.on_fault = said.append
    midi_map.learn("density", 0.0)
    steer(midi_map, cc(20, 0), cc(20, 127))
    midi_map.expire(2 * LEARN_TIMEOUT)
    assert said == []


def test_a_fader_that_passes_the_other_limit_moves_it_along(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("register_low", 20))
    steer(midi_map, cc(20, 120))
    assert (controls.get("register_low"), controls.get("register_high")) == (120, 120)


# The file.


def test_the_file_is_in_the_users_configuration_folder() -> None:
    assert midi_map_path() == config_folder() / "midi_map.toml"


def test_bindings_come_back_from_the_file_as_they_went(file: Path) -> None:
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


def test_no_file_is_an_empty_map(bound: Callable[..., MidiMap], file: Path) -> None:
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
def test_a_mistake_is_refused_with_its_place_and_what_is_allowed(file: Path, text: str, message: str) -> None:
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
    steer(midi_map, cc(20, 0), cc(20, 127))
    learnt.get(timeout=WAIT)
    assert len(read(file)) == 1


def test_a_broken_file_that_cannot_be_renamed_is_never_written_over(
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
    steer(midi_map, cc(20, 0), cc(20, 127))
    learnt.get(timeout=WAIT)
    assert file.read_text() == "[[binding"


def test_a_folder_that_cannot_be_written_costs_the_keeping_only(
    controls: Controls, tmp_path: Path, learnt: "queue.SimpleQueue[Binding]"
) -> None:
    (tmp_path / "user").write_text("no folder")
    midi_map = MidiMap(controls, path=tmp_path / "user" / "midi_map.toml", on_learnt=learnt.put)
    assert midi_map.error is None  # there is just no file
    said: list[str] = []
    midi_map.on_fault = lambda error: said.append(str(error))
    midi_map.learn("density", 0.0)
    steer(midi_map, cc(20, 0), cc(20, 127))
    assert learnt.get(timeout=WAIT) == Binding("density", 20, 1)
    assert len(said) == 1
    assert "cannot be written" in said[0]
    steer(midi_map, cc(20, 0))
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
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
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
        (Binding("takeover", 66), "CC 66 on any channel steers takeover"),
        (Binding("temperature", 20, channel=3), "CC 20 on channel 3 steers temperature"),
        (Binding("temperature", 20, low=1.5), "CC 20 on any channel steers temperature, from 1.5 to its limit"),
    ],
)
def test_a_binding_is_told_in_words(binding: Binding, text: str) -> None:
    assert str(binding) == text
