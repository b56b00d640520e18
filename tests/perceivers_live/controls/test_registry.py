"""The registry of live controls, and the values that the engine reads."""

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceivers_live.controls.catalogue import CONTROLS, LIMIT_PAIRS
from perceivers_live.controls.control import ControlError, Value
from perceivers_live.controls.registry import Controls


def test_every_default_is_within_its_own_range() -> None:
    for control in CONTROLS.values():
        assert control.check(control.default) == control.default
        assert control.help
        assert "\n" not in control.help


def test_values_begin_at_the_defaults_or_at_those_given() -> None:
    assert dict(Controls().snapshot()) == {name: control.default for name, control in CONTROLS.items()}
    assert Controls({"temperature": 0.5}).get("temperature") == 0.5
    with pytest.raises(ControlError, match="unknown control 'temprature'"):
        Controls({"temprature": 0.5})


@pytest.mark.parametrize(
    ("name", "given_value", "expected"),
    [
        ("temperature", 9, 1.5),
        ("temperature", -3.5, 0.5),
        ("temperature", 1, 1.0),
        ("max_polyphony", 4.6, 5),
        ("seed", 1e300, 2**31 - 1),
        ("seed", -(10**400), -1),
        ("density", 10**400, 1.0),
        ("mode", "LISTEN", "listen"),
        ("mode", 1, "duet"),
        ("mode", 0.0, "respond"),
        ("hold", 1.0, True),
        ("hold", "On", True),
        ("hold", "off", False),
        ("hold", False, False),
    ],
)
def test_value_is_converted_to_the_controls_type_and_clamped(name: str, given_value: object, expected: Value) -> None:
    controls = Controls()
    assert controls.set(name, given_value) == expected
    assert controls.get(name) == expected
    assert type(controls.get(name)) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "1.0"),
        ("temperature", True),
        ("temperature", None),
        ("seed", -math.inf),
        ("mode", "duett"),
        ("mode", 4),
        ("mode", 0.5),
        ("mode", True),
        ("hold", 0.5),
        ("hold", math.nan),
        ("hold", "maybe\nnot"),
        ("density", [[[[[]]]]]),
        ("density", b"\0" * 100_000),
    ],
)
def test_invalid_value_is_refused_in_one_line_and_changes_nothing(name: str, value: object) -> None:
    controls = Controls()
    before = controls.snapshot()
    with pytest.raises(ControlError) as refused:
        controls.set(name, value)
    message = str(refused.value)
    assert message.startswith(f"{name}: found ")
    assert CONTROLS[name].allowed in message
    assert message.isprintable()
    assert len(message) < 200
    assert controls.snapshot() is before


def test_unknown_name_error_suggests_the_nearest_control() -> None:
    with pytest.raises(ControlError, match=r"^unknown control 'tempo', nearest is temperature \(0\.5\.\.1\.5\)$"):
        Controls().set("tempo", 1)
    with pytest.raises(ControlError, match="nearest is max_polyphony"):
        Controls().get("MaxPolyphony")
    with pytest.raises(ControlError) as refused:
        Controls().get("\n" * 100_000)
    assert str(refused.value).isprintable()


def test_a_snapshot_never_changes_and_its_version_grows_only_with_changes() -> None:
    controls = Controls()
    first = controls.snapshot()
    controls.set("density", 0.5)
    second = controls.snapshot()
    assert (first["density"], second["density"]) == (0.0, 0.5)
    assert second.version == first.version + 1
    controls.set("density", 0.5)
    assert controls.snapshot() is second
    controls.set("loudness", 0.5)
    assert controls.snapshot().version == second.version + 1
    assert controls.snapshot().decision_version == second.decision_version == first.decision_version + 1
    with pytest.raises(TypeError):
        second["density"] = 1.0  # type: ignore[index]


def test_listeners_receive_the_clamped_value_and_its_source_once() -> None:
    controls = Controls()
    received: list[tuple[str, Value, object]] = []
    stop = controls.on_change(lambda *change: received.append(change))
    controls.set("temperature", 100, source="page")
    controls.set("temperature", 50)  # the same once clamped
    stop()
    controls.set("temperature", 1)
    assert received == [("temperature", 1.5, "page")]


def test_failing_listener_affects_neither_the_change_nor_other_listeners(caplog: pytest.LogCaptureFixture) -> None:
    controls = Controls()
    received: list[str] = []

    def fail(name: str, value: Value, source: object) -> None:
        raise RuntimeError("broken")

    controls.on_change(fail)
    controls.on_change(lambda name, value, source: received.append(name))
    assert controls.set("thru", True) is True
    assert received == ["thru"]
    assert "broken" in caplog.text


def test_a_listener_may_set_another_control() -> None:
    controls = Controls()

    def follow(name: str, value: Value, source: object) -> None:
        if name == "mode":
            controls.set("hold", value == "listen")

    controls.on_change(follow)
    controls.set("mode", "listen")
    assert controls.get("hold") is True


def test_listeners_receive_changes_from_many_threads_in_order() -> None:
    controls = Controls()
    received: list[Value] = []
    controls.on_change(lambda name, value, source: received.append(value))

    def turn(offset: int) -> None:
        for seed in range(offset, offset + 500):
            controls.set("seed", seed)

    threads = [threading.Thread(target=turn, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received[-1] == controls.get("seed")
    assert len(received) == controls.snapshot().version == 2000


@given(st.sampled_from(sorted(CONTROLS)), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary())
def test_values_stay_valid_whatever_is_set(name: str, value: object) -> None:
    controls = Controls()
    try:
        controls.set(name, value)
    except ControlError as error:
        assert str(error).isprintable()
    assert CONTROLS[name].check(controls.get(name)) == controls.get(name)


@pytest.mark.parametrize(("low", "high"), LIMIT_PAIRS)
def test_limit_set_beyond_its_partner_moves_the_partner_and_is_reported(low: str, high: str) -> None:
    controls = Controls({low: 40, high: 80})
    received: list[tuple[str, Value, object]] = []
    controls.on_change(lambda *change: received.append(change))
    controls.set(low, 90, source="surface")
    controls.set(high, 100, source="surface")
    controls.set(high, 30, source="surface")
    assert received == [(low, 90, "surface"), (high, 90, None), (high, 100, "surface"), (high, 30, "surface"), (low, 30, None)]
    assert f"beyond {high} sets both" in CONTROLS[low].help
    assert f"beyond {low} sets both" in CONTROLS[high].help


@given(st.lists(st.tuples(st.sampled_from([name for pair in LIMIT_PAIRS for name in pair]), st.integers(-5, 140))))
def test_limits_stay_in_order_and_the_last_set_limit_is_kept(turns: list[tuple[str, int]]) -> None:
    controls = Controls(dict(turns))
    for name, value in turns:
        assert controls.set(name, value) == controls.get(name) == min(max(value, 0), 127)
        for low, high in LIMIT_PAIRS:
            assert controls.snapshot()[low] <= controls.snapshot()[high]  # type: ignore[operator]
