"""``perceivers-live doctor``: checks everything that a performance depends on, and prints advice.

Every check is a function that yields findings. An exception in one check does not stop the others.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click
import numpy as np

from engine.errors import UserError, install
from engine.realtime import PLAYER, set_realtime
from engine.remote.address import Address
from perceivers_live.commands.addresses import check_osc, check_page
from perceivers_live.commands.doctor_remote import check_remote
from perceivers_live.commands.findings import Finding
from perceivers_live.commands.measuring import computer, improvised
from perceivers_live.controls.midi_map_file import MidiMapError, midi_map_path, read
from perceivers_live.controls.registry import COMMANDS
from perceivers_live.controls.settings import PAGE, Settings
from perceivers_live.network import ListenError

TICKS = 300  # wake-ups of the scheduling check, 5 ms apart
STEPS = 60  # events of the engine check
TEST_STATUS = 0xBF  # control change on channel 16
NUMBERS = range(102, 120)  # undefined controllers
TEST_MESSAGES = 100  # messages of the loopback check, LOOP_GAP seconds apart
LOOP_GAP = 0.02
LOOP_PATIENCE = 1.0  # seconds for a message to come back
FIRST = 5  # attempts to receive the first message
SIGNS = {True: "ok", False: "!!", None: "--"}


def checks(settings: Settings, checkpoint: Path, address: Address | None, *, loopback: bool) -> Iterator[Finding]:
    """Runs all checks in order. ``address``: where the model computes; None: in this process."""
    found: list[Callable[[], Iterable[Finding]]] = [
        lambda: [
            Finding("computer", None, computer()),
            Finding("settings", True, str(settings.path or "defaults; no settings file was found")),
        ],
        lambda: _ports(settings),
        lambda: _bindings_and_link(settings),
        lambda: _addresses(settings),
        _scheduling,
        _priority,
        lambda: _engine(settings, checkpoint),
        lambda: [] if address is None else check_remote(settings, checkpoint, address),
        _accelerators,
    ]
    if loopback:
        found.append(lambda: _loopback(settings))
    for check in found:
        try:
            yield from check()
        except Exception as error:
            yield Finding("check", False, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def _ports(settings: Settings) -> Iterator[Finding]:
    from perceivers_live.midi.ports import PortError, find, list_ports, system_name

    only_page = settings.midi.input_port == settings.midi.output_port == PAGE
    try:
        name, found = system_name(), list_ports()
    except PortError as error:
        if only_page:
            yield Finding("MIDI", None, f"{error.what}; not needed: the page is both input and output")
            return
        advice = f"{error.advice}; " if error.advice else ""
        yield Finding("MIDI", False, error.what, f"{advice}`perceivers-live render` and `demo` need no MIDI")
        return
    yield Finding("MIDI system", True, name)
    for kind, names in zip(("inputs", "outputs"), found, strict=True):
        yield Finding(f"MIDI {kind}", True, ", ".join(names) or "none")
    wanted = (("input", settings.midi.input_port, found[0]), ("output", settings.midi.output_port, found[1]))
    for kind, name, names in wanted:
        if name == PAGE:
            yield Finding(f"{kind} port", True, "the page in the browser")
        elif name:
            try:
                yield Finding(f"{kind} port", True, names[find(names, name, kind)])
            except PortError as error:
                yield Finding(
                    f"{kind} port",
                    False,
                    str(error),
                    "connect it, or use another part of its name",
                )
    if settings.midi.input_port == settings.midi.output_port not in ("", PAGE):
        advice = "if this is a bus, not an instrument, use two; on one bus, echoes are ignored once the loop is proven"
        yield Finding("loop", None, "input and output have the same name", advice)


def _bindings_and_link(settings: Settings) -> Iterator[Finding]:
    """Files and packages that the daemon needs besides the settings file."""
    try:
        bindings = read(midi_map_path(), COMMANDS)
        yield Finding("MIDI controllers", True, f"{len(bindings)} bound")
    except MidiMapError as error:
        yield Finding(
            "MIDI controllers",
            False,
            str(error),
            "correct the file, or let the daemon rename it, and bind the controllers again",
        )
    if settings.clock.source == "link" and importlib.util.find_spec("aalink") is None:
        yield Finding("Ableton Link", False, "not installed", f"{install('link')}, or another clock.source")


def _addresses(settings: Settings) -> Iterator[Finding]:
    """Whether OSC and the page can listen on their addresses."""
    osc, page = settings.osc, settings.page
    for name, server, check in (
        ("OSC", osc, partial(check_osc, osc, osc.port)),
        ("page", page, partial(check_page, page, page.port)),
    ):
        if not server.enabled:
            yield Finding(name, None, "switched off")
            continue
        try:
            check()
        except ListenError as error:
            yield Finding(name, False, str(error), f"if another daemon is running, choose another --{name.lower()}-port")
        else:
            yield Finding(name, True, f"{server.host}:{server.port} is free")


def _scheduling() -> Iterator[Finding]:
    """Measures how late a thread wakes up that sleeps and spins like the player."""
    from perceivers_live.player.player import SPIN

    late = []
    deadline = time.perf_counter()
    for _ in range(TICKS):
        deadline += 0.005
        time.sleep(max(deadline - time.perf_counter() - SPIN, 0))
        while time.perf_counter() < deadline:
            time.sleep(0)
        late.append((time.perf_counter() - deadline) * 1000)
    p50, p95, p99 = np.percentile(late, [50, 95, 99])
    advice = "close other programs; on Linux use a low-latency kernel and the performance governor" if p95 > 2 else ""
    yield Finding("scheduling", bool(p95 <= 2), f"late by p50 {p50:.3f}, p95 {p95:.3f}, p99 {p99:.3f} ms", advice)


def _priority() -> Iterator[Finding]:
    if sys.platform != "linux":
        return
    policies: list[int] = []

    def record_policy() -> None:
        set_realtime(PLAYER)
        policies.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=record_policy)
    thread.start()
    thread.join()
    permitted = policies == [os.SCHED_RR]
    advice = "" if permitted else "add your user to the group `audio` (see /etc/security/limits.d), then log in again"
    yield Finding("real-time priority", permitted, "permitted" if permitted else "not permitted", advice)


def _engine(settings: Settings, checkpoint: Path) -> Iterator[Finding]:
    from engine.engine import Engine
    from engine.runtimes.choose import open_runtime

    began = time.perf_counter()
    runtime = open_runtime(settings.engine.runtime, checkpoint, threads=settings.engine.threads)
    engine = Engine(runtime)
    yield Finding("checkpoint", True, f"{checkpoint}, runtime {runtime.name}, open in {time.perf_counter() - began:.2f} s")
    taken = []
    for event in improvised(STEPS, np.random.default_rng(0)):
        began = time.perf_counter()
        engine.absorb([event])
        engine.hidden()
        taken.append((time.perf_counter() - began) * 1000)
    p50, p99 = np.percentile(taken[STEPS // 6 :], [50, 99])
    smaller = "try --runtime onnx-int8, " if runtime.name == "onnx" else ""
    advice = f"replies may be late: {smaller}close other programs, or run the model on another computer (--engine)"
    yield Finding("model", bool(p99 <= 20), f"an event takes p50 {p50:.1f}, p99 {p99:.1f} ms", "" if p99 <= 20 else advice)
    runtime.close()


def _accelerators() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("GPU", None, "PyTorch is not installed; the model runs on the CPU")
        return
    import torch

    if torch.backends.mps.is_available():
        yield Finding("GPU", None, "Apple GPU: --runtime mps uses it")
    if not torch.cuda.is_available():
        yield Finding("GPU", None, f"no CUDA device for PyTorch {torch.__version__}")
        return
    yield Finding("GPU", True, f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    from engine.runtimes import RuntimeUnavailable
    from engine.runtimes.tensorrt.execute import environment, load_tensorrt

    try:
        here = environment(load_tensorrt())
    except RuntimeUnavailable as error:
        yield Finding("TensorRT", None, str(error), f"{install('tensorrt')} makes inference on the GPU faster")
    else:
        yield Finding("TensorRT", True, f"{here.backend} {here.tensorrt}")


def _loopback(settings: Settings) -> Iterator[Finding]:
    """Measures round trips from our output to our input, through a cable or a virtual loop."""
    from perceivers_live.midi.ports import InputPort, OutputPort

    arrivals: dict[int, float] = {}

    def on_message(now: float, message: Sequence[int]) -> None:
        if len(message) == 3 and message[0] == TEST_STATUS:
            arrivals.setdefault(message[1], now)

    taken: list[float | None] = []  # milliseconds
    wanted = settings.midi
    with closing(OutputPort(wanted.output_port)) as output, closing(InputPort(wanted.input_port, on_message)) as source:

        def round_trip(i: int) -> float | None:
            number = NUMBERS[i % len(NUMBERS)]
            arrivals.clear()
            sent = time.perf_counter()
            output.send((TEST_STATUS, number, 0))
            while number not in arrivals and time.perf_counter() < sent + LOOP_PATIENCE:
                time.sleep(0.0002)
            return (arrivals[number] - sent) * 1000 if number in arrivals else None

        if any(round_trip(i) is not None for i in range(FIRST)):  # the ports may just be getting connected
            for i in range(TEST_MESSAGES):
                time.sleep(LOOP_GAP)
                taken.append(round_trip(i))
    back = [one for one in taken if one is not None]
    if not back:
        text = f"no message from {output.name} arrived at {source.name}"
        yield Finding("loopback", False, text, "connect the output to the input, by cable or in the MIDI system, and try again")
        return
    p50, p95, p99 = np.percentile(back, [50, 95, 99])
    lost = 100 * (1 - len(back) / TEST_MESSAGES)
    text = f"round trip p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms, {lost:.0f} % lost"
    half = p50 / 2
    advice = f"assuming half of it on each side: input_offset_ms = {-half:.1f}, output_offset_ms = {-half:.1f}"
    yield Finding("loopback", lost == 0, text, advice if half >= 0.5 else "")


def report(findings: Iterable[Finding], json_file: Path | None) -> bool:
    """Prints the findings as they arrive, then the advice; returns False if any needs attention."""
    done = []
    for one in findings:
        done.append(one)
        click.echo(f"{SIGNS[one.good]:3}{one.name:20}{one.text}")
    advice = [f"  {one.name}: {one.advice}" for one in done if one.advice]
    good = all(one.good is not False for one in done)
    click.echo("\n" + ("Ready to play." if good else "Problems found: see above."))
    if advice:
        click.echo("\n".join(["What you can do:", *advice]))
    if json_file is not None:
        rows = [dataclasses.asdict(one) for one in done]
        json_file.write_text(json.dumps({"machine": computer(), "rows": rows}), encoding="utf-8")
    return good
