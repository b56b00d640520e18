"""MIDI controllers and the controls and commands that they are bound to."""

import queue
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import Value
from perceivers_live.controls.midi_map import NOT_LEARNABLE, MidiMap, control_value
from perceivers_live.controls.midi_map_file import Binding
from perceivers_live.controls.registry import Controls
from tests.perceivers_live.controls.midi_maps import WAIT, cc, feed_all


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
    ("binding", "value", "expected"),
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
    bound: Callable[..., MidiMap], controls: Controls, binding: Binding, value: int, expected: Value
) -> None:
    midi_map = bound(binding)
    for before in (127 - value, value):
        assert midi_map.feed(0.0, cc(1, before))
    assert controls.get(binding.target) == expected
    assert type(controls.get(binding.target)) is type(expected)


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


def test_command_runs_once_per_press(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    midi_map = bound(Binding("takeover", 30))
    assert feed_all(midi_map, cc(30, 0), cc(30, 63), cc(30, 64), cc(30, 100), cc(30, 127), cc(30, 64)) == [True] * 6
    assert calls == ["takeover"]
    feed_all(midi_map, cc(30, 0), cc(30, 127))
    assert calls == ["takeover", "takeover"]


def test_a_command_runs_at_each_press_of_a_button_without_releases(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    feed_all(bound(Binding("takeover", 30)), cc(30, 127), cc(30, 127), cc(30, 127))
    assert calls == ["takeover"] * 3


def test_command_runs_at_the_very_first_press(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    feed_all(bound(Binding("takeover", 30)), cc(30, 127))
    assert calls == ["takeover"]


def test_failing_command_does_not_raise_in_feed(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound(Binding("fail", 30), Binding("density", 31))
    assert feed_all(midi_map, cc(30, 127), cc(31, 0)) == [True, True]


def test_binding_to_one_channel_takes_precedence_over_one_to_any_channel(
    bound: Callable[..., MidiMap], controls: Controls
) -> None:
    midi_map = bound(Binding("density", 20), Binding("dynamics", 20, channel=5))
    feed_all(midi_map, cc(20, 127, channel=5))
    assert (controls.get("density"), controls.get("dynamics")) == (0.0, 1.0)
    feed_all(midi_map, cc(20, 127, channel=16))
    assert controls.get("density") == 1.0


def test_unbound_messages_are_not_consumed(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("density", 20, channel=2))
    others = [cc(20, 100), cc(21, 100, 2), cc(64, 127, 2), (0x91, 20, 100), (0xC1, 20), (0xE1, 20, 100), (0xF8,)]
    assert not any(midi_map.feed(0.0, message) for message in others)
    assert controls.snapshot().version == 0


def test_listener_receives_the_midi_map_as_the_source_of_a_change(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map, sources = bound(Binding("density", 20)), []
    controls.on_change(lambda name, value, source: sources.append(source))
    feed_all(midi_map, cc(20, 127))
    assert sources == [midi_map]


@settings(deadline=None)
@given(messages=st.lists(st.lists(st.integers(-1, 300), max_size=4) | st.tuples(st.just(0xB0), *[st.integers(0, 127)] * 2)))
def test_feed_accepts_arbitrary_messages(messages: list[list[int]]) -> None:
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


def test_fader_beyond_the_other_register_limit_moves_that_limit(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("register_low", 20))
    feed_all(midi_map, cc(20, 120))
    assert (controls.get("register_low"), controls.get("register_high")) == (120, 120)
