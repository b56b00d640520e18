"""How MIDI controllers are learnt, and which ones cannot be."""

import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.midi_map import LEARN_MOVEMENT, LEARN_TIMEOUT, NOT_LEARNABLE, MidiMap
from perceivers_live.controls.midi_map_file import Binding, MidiMapError, read
from perceivers_live.controls.registry import Controls
from tests.perceivers_live.controls.midi_maps import WAIT, cc, feed_all


def test_the_next_controller_that_moves_is_learnt(
    bound: Callable[..., MidiMap], controls: Controls, file: Path, learnt: "queue.SimpleQueue[Binding]"
) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(33, 64, 7), *(cc(33, 64 + step, 7) for step in range(1, LEARN_MOVEMENT)))
    assert midi_map.bindings == ()
    assert midi_map.feed(1.0, cc(33, 64 + LEARN_MOVEMENT, 7))
    assert midi_map.bindings == (Binding("density", 33, 7),)
    assert learnt.get(timeout=WAIT) == Binding("density", 33, 7)
    assert read(file) == [Binding("density", 33, 7)]  # saved before it is reported
    feed_all(midi_map, cc(33, 127, 7))
    assert controls.get("density") == 1.0


def test_jittering_fader_is_not_learnt(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    feed_all(midi_map, *(cc(10, 60 + turn % 3) for turn in range(200)))
    feed_all(midi_map, *(cc(11, turn) for turn in range(10)))
    assert [binding.number for binding in midi_map.bindings] == [11]


def test_button_is_learnt_by_a_press_without_running_its_command(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    midi_map = bound()
    midi_map.learn("takeover", 0.0)
    feed_all(midi_map, cc(50, 127), cc(50, 0))
    assert midi_map.bindings == (Binding("takeover", 50, 1),)
    assert calls == []
    feed_all(midi_map, cc(50, 127), cc(50, 0))
    assert calls == ["takeover"]


def test_a_button_without_releases_is_learnt_by_two_presses(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    midi_map = bound()
    midi_map.learn("takeover", 0.0)
    feed_all(midi_map, cc(50, 127), cc(50, 127))
    assert midi_map.bindings == (Binding("takeover", 50, 1),)
    assert calls == []
    feed_all(midi_map, cc(50, 127), cc(50, 127))
    assert calls == ["takeover", "takeover"]


def test_movement_is_measured_from_the_faders_earlier_value(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    feed_all(midi_map, cc(10, 60), cc(11, 60))
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(10, 60), cc(11, 60 + LEARN_MOVEMENT))
    assert [binding.number for binding in midi_map.bindings] == [11]


@pytest.mark.parametrize("number", sorted(NOT_LEARNABLE))
def test_pedals_bank_select_and_channel_mode_are_not_learnt(bound: Callable[..., MidiMap], number: int) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    assert feed_all(midi_map, cc(number, 0), cc(number, 127), cc(number, 0)) == [False] * 3
    assert midi_map.bindings == ()
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    assert midi_map.bindings == (Binding("density", 20, 1),), "it still waits for a controller"


def test_soft_pedal_can_be_learnt_for_takeover_but_not_the_sustain_pedal(bound: Callable[..., MidiMap], calls: list[str]) -> None:
    midi_map = bound()
    midi_map.learn("takeover", 0.0)
    assert feed_all(midi_map, cc(64, 0), cc(64, 127), cc(67, 0), cc(67, 127)) == [False, False, False, True]
    assert midi_map.bindings == (Binding("takeover", 67, 1),)
    feed_all(midi_map, cc(67, 0), cc(67, 127))
    assert calls == ["takeover"]


def test_lsb_of_a_14_bit_fader_is_not_learnt(bound: Callable[..., MidiMap]) -> None:
    """A 14-bit fader sends its LSB, at the controller number plus 32, with every message; the LSB runs through all values."""
    midi_map = bound()
    midi_map.learn("density", 0.0)
    for value in range(0, 1000, 100):
        feed_all(midi_map, cc(7, value >> 7), cc(39, value & 127))
    assert [binding.number for binding in midi_map.bindings] == [7]


def test_learning_suspends_and_replaces_an_older_binding_of_the_controller(
    bound: Callable[..., MidiMap], controls: Controls
) -> None:
    midi_map = bound(Binding("density", 20), Binding("dynamics", 21))
    midi_map.learn("pace", 0.0)
    assert feed_all(midi_map, cc(20, 0), cc(20, 127)) == [True, True]
    assert (controls.get("density"), controls.get("pace")) == (0.0, CONTROLS["pace"].default)
    assert set(midi_map.bindings) == {Binding("dynamics", 21), Binding("pace", 20, 1)}
    feed_all(midi_map, cc(20, 127))
    assert (controls.get("density"), controls.get("pace")) == (0.0, CONTROLS["pace"].high)


def test_learning_times_out(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    midi_map.learn("density", 100.0)
    assert not midi_map.feed(100.0 + LEARN_TIMEOUT, cc(20, 0))
    assert midi_map.bindings == ()


def test_old_bindings_work_again_after_a_learning_timeout(bound: Callable[..., MidiMap], controls: Controls) -> None:
    midi_map = bound(Binding("density", 20))
    midi_map.learn("dynamics", 0.0)
    midi_map.feed(LEARN_TIMEOUT, cc(20, 127))
    assert controls.get("density") == 1.0


def test_second_learn_request_replaces_the_first(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    midi_map.learn("takeover", 1.0)
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    assert midi_map.bindings == (Binding("takeover", 20, 1),)


def test_unlearn_removes_bindings_from_the_map_and_the_file(bound: Callable[..., MidiMap], file: Path) -> None:
    midi_map = bound(Binding("density", 20), Binding("density", 21), Binding("takeover", 22))
    assert midi_map.unlearn("density") == 2
    assert midi_map.unlearn("density") == 0
    assert read(file, ["takeover"]) == [Binding("takeover", 22)]
    assert feed_all(midi_map, cc(20, 100), cc(22, 100)) == [False, True]


def test_learn_and_unlearn_refuse_an_unknown_name(bound: Callable[..., MidiMap]) -> None:
    midi_map = bound()
    for request in (lambda: midi_map.learn("densty", 0.0), lambda: midi_map.unlearn("densty")):
        with pytest.raises(MidiMapError, match="unknown control or command 'densty', nearest is density"):
            request()


def test_a_command_with_the_name_of_a_control_is_refused(controls: Controls) -> None:
    with pytest.raises(ValueError, match="density"):
        MidiMap(controls, {"density": lambda: None})


@pytest.mark.parametrize(
    "message",
    [
        [(101, 0), (100, 0), (6, 2)],  # an MPE keyboard sends its pitch bend range when it is connected
        [(101, 0), (100, 6), (6, 15), (38, 0)],
        [(99, 1), (98, 40), (6, 0), (38, 0), (6, 127), (38, 127)],  # an NRPN knob
        [(99, 1), (98, 40), (96, 127), (97, 127), (96, 0), (97, 0)],
        [(98, 40), (99, 1), (6, 0), (6, 127)],
    ],
)
def test_parameter_messages_are_not_learnt(bound: Callable[..., MidiMap], message: list[tuple[int, int]]) -> None:
    midi_map = bound()
    midi_map.learn("density", 0.0)
    assert not any(feed_all(midi_map, *(cc(number, value, 3) for number, value in message * 3)))
    assert midi_map.bindings == ()
    feed_all(midi_map, cc(6, 0), cc(6, 127))
    assert midi_map.bindings == (Binding("density", 6, 1),), "on another channel it is a slider"


@pytest.mark.parametrize("ending", [[(101, 127), (100, 127)], [(100, 127), (101, 127)], [(99, 127), (98, 127)], [(121, 0)]])
def test_data_entry_slider_can_be_learnt_after_a_parameter_message(
    bound: Callable[..., MidiMap], ending: list[tuple[int, int]]
) -> None:
    midi_map = bound()
    feed_all(midi_map, cc(101, 0), cc(100, 0), cc(6, 2), *(cc(number, value) for number, value in ending))
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(6, 2), cc(6, 60))
    assert midi_map.bindings == (Binding("density", 6, 1),)


def test_learning_timeout_is_reported_once_with_the_reason(bound: Callable[..., MidiMap]) -> None:
    midi_map, reported = bound(), list[str]()
    midi_map.on_fault = lambda error: reported.append(str(error))
    midi_map.learn("density", 0.0)
    midi_map.expire(LEARN_TIMEOUT - 0.1)
    assert reported == []
    midi_map.expire(LEARN_TIMEOUT)
    midi_map.expire(LEARN_TIMEOUT)
    midi_map.learn("takeover", 100.0)
    for number in (64, 98):
        midi_map.feed(101.0, cc(number, 127))
    midi_map.feed(100.0 + LEARN_TIMEOUT, cc(20, 127))
    midi_map.expire(100.0 + LEARN_TIMEOUT)
    assert reported == [
        "density: not learnt, no controller moved (20 s); start learning again",
        "takeover: not learnt, these controllers cannot be learnt: CC 64, CC 98 (20 s); start learning again",
    ]


def test_completed_learning_does_not_time_out(bound: Callable[..., MidiMap]) -> None:
    midi_map, reported = bound(), list[MidiMapError]()
    midi_map.on_fault = reported.append
    midi_map.learn("density", 0.0)
    feed_all(midi_map, cc(20, 0), cc(20, 127))
    midi_map.expire(2 * LEARN_TIMEOUT)
    assert reported == []
