"""Time of one event, compared with other models: python -m benchmarks.peers [--rounds 20] [--cpu-time] [--json FILE]

In a performance each event is sampled (``sample``) and absorbed into the model's state (``feed``). Both are timed for:

    perceivers-live     the bundled checkpoint through ``engine``, in float32 and with int8 weights
    plain Transformer   a sliding-window Transformer with as many parameters, on the same runtime: once with a cache of the same
                        size in total, once with the window of the longest scale in every layer
    Notochord           the GRU in the size of its release, used as in its app ``homunculus``, in a duet of two voices

All models get the same events with the same held notes, on one thread, with full caches. They take turns of a few events, so that
other load on the machine affects all of them. Sampled events are discarded. The plain Transformer and Notochord have random
weights, which does not affect the time. Notochord is not a dependency of this project; if it is not installed, its rows are left
out.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch

from engine.checkpoint import bundled, load_model, read_config, save_model
from engine.config import ModelConfig
from engine.engine import Engine
from engine.events import NOTE_OFF, Event
from engine.model import PerceiverS
from engine.runtimes import Runtime, RuntimeUnavailable
from engine.runtimes.choose import open_runtime
from engine.sampling import SamplingControls, sampling_bias
from perceivers_live.commands.measuring import computer
from trainer.export import write_onnx

INSTALL = "pip install --no-deps notochord==0.8.0 && pip install appdirs joblib mido pandas tqdm"
PARTS = ("feed", "sample", "feed + sample")
COLD_EVENTS = 5  # at the start of a turn; not counted, because the processor's caches are cold
PLAYER, MACHINE = 1, 2  # Notochord's instruments in the duet, one for each voice
NOTOCHORD_MEMORY = 512  # events of history; the size of its state does not depend on their number


class Peer(NamedTuple):
    """A model under test. ``sample`` draws the next event and leaves the state unchanged; ``feed`` absorbs an event into the
    state.
    """

    name: str
    parameters: int
    sample: Callable[[], object]
    feed: Callable[[Event], object]


def random_events(count: int, rng: np.random.Generator, held: list[int]) -> list[Event]:
    """Random legal events with up to six held notes. ``held`` has the held notes in order of their note-ons; it is updated, so
    that the next call continues from it.
    """
    events = []
    for wait in rng.integers(0, 25, count).tolist():
        if len(held) > rng.integers(6):
            events.append(Event(wait, NOTE_OFF + held.pop(0)))
        else:
            held.append(int(rng.choice([pitch for pitch in range(30, 90) if pitch not in held])))
            events.append(Event(wait, held[-1], int(rng.integers(32))))
    return events


def perceivers(name: str, runtime: Runtime, parameters: int, past: Sequence[Event]) -> Peer:
    """An engine that has absorbed ``past``. ``name``: for the table, without the runtime."""
    engine, seeds = Engine(runtime), itertools.count()
    engine.absorb(past)

    def sample() -> Event:
        own = set(engine.sounding.held().tolist())
        return engine.decide(
            sampling_bias(engine.sounding, SamplingControls(), np.random.default_rng(next(seeds)), own=own, own_pedal=False)
        )

    return Peer(f"{name}, {runtime.name}", parameters, sample, lambda event: engine.absorb([event]))


def plain(config: ModelConfig, window: int, past: Sequence[Event]) -> Peer:
    """A sliding-window Transformer with random weights and the width of ``config``. It has a layer for each layer and for each
    cross-attention stage of ``config``.
    """
    layers = len(config.scales) + config.layers
    model = PerceiverS(dataclasses.replace(config, layers=layers, scales=(), window=window)).eval()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_model(model, Path(name))
        write_onnx(model, Path(name))
        runtime = open_runtime("onnx", Path(name), threads=1)
    return perceivers(f"plain Transformer, window {window}", runtime, size(model), past)


def notochord(past: Sequence[Event]) -> Peer:
    """Notochord in the size of its release, which is the default of its constructor: the checkpoint of 213.0 MB has 17.7 M
    parameters and two Adam moments for each. Raises ``ImportError`` if Notochord is not installed.
    """
    import notochord as package
    from notochord.event import EventConstraints

    package.event.print = lambda *_: None  # it prints every constraint; its app disables that too
    model = package.Notochord().eval()
    model.reset()
    keys = set(range(128))

    def sample() -> dict[str, Any]:
        # as in homunculus, auto_query(immediate=True): default controls, one voice for the player and one for the machine
        constraints = EventConstraints(
            note_on_map={PLAYER: set(keys), MACHINE: set(keys)},
            min_polyphony={},
            max_polyphony={},
            min_duration={},
            max_duration={MACHINE: 11},
            min_time=0,
            min_vel={},
            max_vel={},
            truncate_quantile_time=(0.05, 1),
            truncate_quantile_pitch=(0, 1),
            truncate_quantile_vel=(0, 1),
            pitch_temp=0.9,
            rhythm_temp=1,
            timing_temp=0.2,
            steer_density=0.45,
            inst_weights={},
            external={PLAYER},
        )
        sampled: dict[str, Any] = model.sample(constraints, order="vtip").as_dict()
        return sampled

    def feed(event: Event) -> None:
        velocity = 4 * event.velocity + 2 if event.is_note_on else 0
        model.feed(inst=MACHINE, pitch=event.pitch, time=event.wait / 100, vel=velocity)

    for event in past[-NOTOCHORD_MEMORY:]:
        feed(event)
    return Peer(f"Notochord {version('notochord')}, random weights", size(model), sample, feed)


def size(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def turn(peer: Peer, events: Sequence[Event], pause: float, clock: Callable[[], float]) -> list[tuple[float, float, float]]:
    """Runs a turn of a model. Returns the times of ``PARTS`` for each event in ms, measured with ``clock``. Sleeps ``pause``
    seconds before each event.
    """
    taken = []
    for event in events:
        if pause:
            time.sleep(pause)
        began = clock()
        peer.sample()
        sampled = clock()
        peer.feed(event)
        fed = clock()
        taken.append(((fed - sampled) * 1000, (sampled - began) * 1000, (fed - began) * 1000))
    return taken


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=bundled())
@click.option("--rounds", default=20, show_default=True, help="Turns of each model.")
@click.option("--events", default=50, show_default=True, help="Events per turn.")
@click.option(
    "--pause-ms", default=0.0, help="Sleep before each event, so that the processor's caches become cold as in a performance."
)
@click.option("--cpu-time", is_flag=True, help="Measure the thread's CPU time, which other load affects less.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the figures to this file.")
def main(checkpoint: Path, rounds: int, events: int, pause_ms: float, cpu_time: bool, out: Path | None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch"))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    clock, unit = (time.thread_time, "CPU ms") if cpu_time else (time.perf_counter, "ms")
    rng, held = np.random.default_rng(0), list[int]()
    config, _ = read_config(checkpoint)
    past = random_events(max(config.windows) + config.slack, rng, held)
    equal = sum(config.windows) // len(config.windows)  # the same number of cache rows in total
    own = size(load_model(checkpoint))
    peers = []
    for name in ("onnx", "onnx-int8"):
        try:
            peers.append(perceivers("perceivers-live", open_runtime(name, checkpoint, threads=1), own, past))
        except RuntimeUnavailable as error:
            print(f"{name} is left out: {error}")
    peers += [plain(config, window, past) for window in (equal, max(config.windows))]
    reference = None
    try:
        peers.append(notochord(past))
        reference = peers[-1].name
    except ImportError as error:
        print(f"Notochord is left out ({error}); to install it: {INSTALL}")
    taken: dict[str, list[tuple[float, float, float]]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        stream = random_events(COLD_EVENTS + events, rng, held)
        for peer in peers:
            taken[peer.name] += turn(peer, stream, pause_ms / 1000, clock)[COLD_EVENTS:]
    print(f"{computer()}, {packages}, 1 thread, {rounds} turns of {events} events each")
    print(f"{unit + ' per event':44}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}{'of p50':>8}{'of p95':>8}")
    figures = {name: np.percentile(np.array(rows), [50, 95, 99, 100], axis=0).T for name, rows in taken.items()}
    for peer in peers:
        print(f"{peer.name} ({peer.parameters / 1e6:.1f} M parameters)")
        for i, part in enumerate(PARTS):
            row = figures[peer.name][i]
            shares = "" if reference is None else "".join(f"{share:8.2f}" for share in (row / figures[reference][i])[:2])
            print(f"    {part:40}" + "".join(f"{ms:8.2f}" for ms in row) + shares)
    if reference:
        print(f"of p50, of p95: time relative to {reference}")
    if out:
        rows = [
            {"name": f"{name}: {part}", "unit": unit}
            | dict(zip(("p50", "p95", "p99", "max"), (round(float(ms), 3) for ms in figures[name][i]), strict=True))
            | {"n": len(taken[name])}
            for name in taken
            for i, part in enumerate(PARTS)
        ]
        out.write_text(json.dumps({"machine": f"{computer()}, {packages}", "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
