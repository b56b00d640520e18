"""OSC bundles wait for their time tag; only the unreadable messages of a bundle are lost."""

import time
from collections.abc import Callable

import pytest
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import build_msg

from perceivers_live.controls.registry import Controls
from perceivers_live.osc.server import MAX_AHEAD, MAX_SCHEDULED, OscServer
from tests.perceivers_live.osc.client import SET, Client, bundle, nested
from tests.waiting import until


def time_tag(ahead: float) -> bytes:
    """The time tag ``ahead`` seconds from now."""
    return int((time.time() + ahead + 2_208_988_800) * 2**32).to_bytes(8, "big")


def test_bundles_without_a_future_time_are_processed_at_once(surface: Client, controls: Controls) -> None:
    builder = OscBundleBuilder(IMMEDIATELY)
    builder.add_content(build_msg("/perceivers/density", 0.25))
    builder.add_content(build_msg("/perceivers/density", 0.5))
    surface.send(builder.build())
    assert surface.all() == []
    assert controls.get("density") == 0.5
    surface.raw(nested(5, build_msg("/perceivers/dynamics", 1.0).dgram))
    surface.raw(bundle(build_msg("/perceivers/seed", 4).dgram, tag=time_tag(-1.0)))
    assert surface.all() == []
    assert (controls.get("dynamics"), controls.get("seed")) == (1.0, 4)


def test_a_bundle_waits_for_its_time(surface: Client, controls: Controls) -> None:
    changes: list[tuple[object, float]] = []
    controls.on_change(lambda name, value, source: changes.append((value, time.time())))
    due = time.time() + 0.5
    surface.raw(bundle(*[build_msg("/perceivers/seed", number).dgram for number in range(20)], tag=time_tag(0.5)))
    assert until(lambda: len(changes) == 20)
    assert [value for value, _ in changes] == list(range(20))
    assert changes[0][1] >= due - 0.01


def test_scheduled_bundles_are_processed_in_time_order(controls: Controls) -> None:
    server = OscServer(controls, {}, port=0)
    server.close()
    first, second, third = (build_msg("/perceivers/seed", number).dgram for number in (1, 2, 3))
    server._handle(bundle(bundle(third, tag=time_tag(30)), tag=time_tag(20)), ("127.0.0.1", 9))
    server._handle(
        bundle(bundle(second), tag=time_tag(20)), ("127.0.0.1", 9)
    )  # an inner bundle is never earlier than its outer one
    server._handle(bundle(first, tag=time_tag(10)), ("127.0.0.1", 9))
    taken: list[object] = []
    for later in (5, 15, 25, 35):
        due = server._scheduled.pop_due(time.monotonic() + later)
        taken.append(None if due is None else due[0].values)
    assert taken == [None, [1], [2], [3]]


@pytest.mark.parametrize("tag", [lambda: time_tag(MAX_AHEAD + 60), lambda: b"\xff" * 8], ids=["two minutes", "the last time"])
def test_a_bundle_for_a_distant_future_is_refused(surface: Client, controls: Controls, tag: Callable[[], bytes]) -> None:
    surface.raw(bundle(SET, tag=tag()))
    [(address, values)] = surface.all()
    assert (address, values[0]) == ("/perceivers/error", "time")
    assert str(values[1]).endswith("s ahead, allowed up to 60 s")
    assert controls.get("density") == 0.0


def test_number_of_scheduled_messages_is_limited(controls: Controls) -> None:
    server = OscServer(controls, {}, port=0)
    server.close()
    sent: list[tuple[object, ...]] = []
    server._send_to = lambda *what: sent.append(what)  # type: ignore[method-assign]
    packet = bundle(*[build_msg("/perceivers/seed", 1).dgram] * 64, tag=time_tag(30))
    for _ in range(MAX_SCHEDULED // 64):
        server._handle(packet, ("127.0.0.1", 9))
    assert sent == []
    server._handle(bundle(SET, tag=time_tag(30)), ("127.0.0.1", 9))
    assert [what[2] for what in sent] == ["time"]
    assert len(server._scheduled) == MAX_SCHEDULED


@pytest.mark.parametrize("broken", [b"/perceivers/seed\0\0\0\0,z\0\0", b"junk", b"/perceivers/seed\0\0\0\0,i\0\0\1"])
def test_only_the_unreadable_message_of_a_bundle_is_lost(surface: Client, controls: Controls, broken: bytes) -> None:
    surface.raw(bundle(SET, broken, build_msg("/perceivers/dynamics", 1.0).dgram))
    [(address, values)] = surface.all()
    assert (address, values[0]) == ("/perceivers/error", "malformed")
    assert (controls.get("density"), controls.get("dynamics")) == (0.5, 1.0)


@pytest.mark.parametrize("argument", [b",r\0\0\0\0\0\2", b",m\0\0\0\0\0\2", b",t\0\0" + bytes(7) + b"\2", b",b\0\0\0\0\0\0"])
@pytest.mark.parametrize("name", ["temperature", "seed", "mode", "hold"])
def test_non_numeric_osc_types_are_refused_as_values(surface: Client, controls: Controls, name: str, argument: bytes) -> None:
    address = f"/perceivers/{name}".encode()
    surface.raw(address + bytes(4 - len(address) % 4) + argument)
    [(_, values)] = surface.all()
    assert values[0] == "value"
    assert str(values[1]).startswith(f"{name}: found ")
    assert controls.snapshot().version == 0


def test_colour_is_neither_a_button_press_nor_a_port(surface: Client, calls: list[tuple[object, ...]]) -> None:
    surface.raw(b"/perceivers/panic\0\0\0,r\0\0\0\0\0\1")
    surface.raw(b"/perceivers/subscribe\0\0\0,r\0\0\0\0\x23\x29")
    assert [values[0] for _, values in surface.all()] == ["arguments", "port"]
    assert calls == []


def test_a_symbol_is_a_string(surface: Client, controls: Controls) -> None:
    surface.raw(b"/perceivers/mode\0\0\0\0,S\0\0duet\0\0\0\0")
    assert surface.all() == []
    assert controls.get("mode") == "duet"
