"""Runs one measurement of ``benchmarks.gpu``: python -m benchmarks.gpu_steps STEP OPTIONS

OPTIONS is a JSON object with preset, history and count. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.checkpoint import bundled, load_model, save_model
from engine.config import PRESETS
from engine.engine import Engine
from engine.model import PerceiverS
from engine.runtimes import Runtime, RuntimeUnavailable
from engine.runtimes.pytorch import SIZES, TorchRuntime
from engine.sounding import ages_of
from perceivers_live.commands.measuring import computer, copy_bandwidth, improvised, play_event, row, timed

WARM_UP = 20  # events generated before the timed ones
EXACT = 1e-4  # largest difference of hidden states in float32, relative to the largest value
EVENTS = 400  # in the exactness check; the rings of its model have at most 72 rows
TRAINING_STEPS = 5
PROFILED = 20  # profiled events
SHOWN = 12  # operators listed in the profile
GPU = torch.cuda.is_available()


def open_way(way: str, model: PerceiverS, folder: Path, precision: str) -> Runtime:
    """Opens the runtime named ``way`` with ``precision`` fp32 or fp16. Without a GPU, eager runs on the CPU in float32; the
    others raise ``RuntimeUnavailable``.
    """
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    if way == "tensorrt":
        from engine.runtimes.tensorrt.cache import PlanCache
        from engine.runtimes.tensorrt.compile_process import compile_missing
        from engine.runtimes.tensorrt.runtime import TensorRTRuntime

        save_model(model, folder)
        cache = PlanCache(folder / "plans")
        compile_missing(folder, precision, SIZES, cache)
        runtime = TensorRTRuntime(folder, precision=precision, cache=cache)
        if runtime.serving != "tensorrt":
            raise RuntimeUnavailable("the plans do not run here; see the log")
        return runtime
    if way == "eager":
        return TorchRuntime(model, "cuda" if GPU else "eager", precision=dtype if GPU else torch.float32, capture=False)
    return TorchRuntime(model, way, precision=dtype)


def random_model(preset: str) -> PerceiverS:
    """A model with random weights large enough that every block affects the output."""
    torch.manual_seed(1)
    model = PerceiverS(PRESETS[preset]).eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.out.weight, std=0.3 * block.out.in_features**-0.5)
        torch.nn.init.normal_(block.down.weight, std=0.3 * block.down.in_features**-0.5)
    return model


def exactness(way: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Streams events through the smallest model, singly and in chunks, and compares with the full forward on the CPU.

    ``difference``: largest difference of hidden states, relative to the largest value; ``exact``: whether it is below ``EXACT``.
    """
    model, events = random_model("tiny"), [*improvised(EVENTS, np.random.default_rng(0))]
    engine = Engine(open_way(way, random_model("tiny"), folder, "fp32"))
    array = np.concatenate(([engine.last], events))
    inputs = (array, ages_of(array), np.arange(len(array)), np.cumsum(array[:, 0]))
    past, ages, positions, times = (torch.from_numpy(part)[None] for part in inputs)
    with torch.inference_mode():
        expected = model.hidden(past, ages, positions, times, len(array))[0].numpy()
    worst, rng = 0.0, np.random.default_rng(0)
    while engine.position < EVENTS:
        size = int(rng.choice([1, 1, 1, 5, 8, 20, 64]))
        engine.absorb(events[engine.position : engine.position + size])
        worst = max(worst, float(np.abs(engine.hidden() - expected[engine.position]).max()))
    difference = worst / max(1.0, float(np.abs(expected).max()))
    return {"difference": difference, "exact": difference < EXACT}


def parity(_: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compares the bundled model in half precision, on the GPU if there is one, with float32 on the CPU.

    ``nats``: KL divergence of waits and actions per event; ``error_of_hidden``: relative error of the hidden states.
    """
    music, states = improvised(options["count"] + 1, np.random.default_rng(0)), []
    half = TorchRuntime(bundled(), "cuda" if GPU else "eager", precision=torch.float16)
    newest = min(options["count"], 200)
    for runtime in (TorchRuntime(bundled()), half):
        engine = Engine(runtime)
        engine.absorb(music[:-1])
        states.append(torch.from_numpy(engine.recent_hidden(newest)))
    exact, rounded = states
    following = torch.tensor(np.array(music[-newest:])).long()
    with torch.inference_mode():
        p, q = (load_model(bundled()).head(state, following[:, 0], following[:, 1]) for state in states)
        pairs = ((p.wait, q.wait), (p.action, q.action))
        nats = sum(float((a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1).mean()) for a, b in pairs)
    return {"nats": nats, "error_of_hidden": float((exact - rounded).norm() / exact.norm())}


def event(engine: Engine, seed: int) -> None:
    """One event as in a performance. Returns when the device has finished."""
    play_event(engine, seed)
    engine.hidden()


def playing(way: str, options: dict[str, Any], folder: Path) -> Engine:
    """An engine of the preset with random weights that has absorbed the history and is warmed up."""
    engine = Engine(open_way(way, random_model(options["preset"]), folder, "fp16"))
    engine.absorb(improvised(options["history"], np.random.default_rng(0)))
    for seed in range(WARM_UP):
        event(engine, seed)
    return engine


def latency(way: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Percentiles of the time per event in ms, and its floor."""
    engine = playing(way, options, folder)
    floor = engine.runtime.step_bytes / copy_bandwidth(engine.runtime)
    taken = [timed(lambda seed=seed: event(engine, seed)) for seed in range(WARM_UP, WARM_UP + options["count"])]  # type: ignore[misc]
    return dataclasses.asdict(row(way, taken, floor=floor))


def profile(_: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The operators that take the most time of an event, without the time of operators they call; in the runtime eager."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    engine = playing("eager", options, folder)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if GPU else [])]
    with profiler(activities=activities) as profiled:
        for seed in range(PROFILED):
            event(engine, seed)
    own_time: Callable[[Any], float] = (
        (lambda entry: entry.self_device_time_total) if GPU else (lambda entry: entry.self_cpu_time_total)
    )
    entries = sorted(profiled.key_averages(), key=own_time, reverse=True)[:SHOWN]
    return {
        "rows": [
            {"operator": entry.key[:80], "ms": own_time(entry) / 1000 / PROFILED, "calls": entry.count / PROFILED}
            for entry in entries
        ]
    }


def training(batch: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Target events per second of whole training steps, and peak GPU memory in MB. The model is compiled on a GPU only."""
    from benchmarks.training import improvised as performance
    from trainer import optimizer as optim
    from trainer.segmentation import Segmentation, draw
    from trainer.train import Objective, fast_arithmetic

    config, device = PRESETS[options["preset"]], torch.device("cuda" if GPU else "cpu")
    segmentation, rng = Segmentation.for_model(config), np.random.default_rng(0)
    piece = performance(config.reach + 2 * segmentation.latents)
    examples = [draw(piece, segmentation, rng) for _ in range(int(batch))]
    *inputs, weight = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*examples, strict=True))
    objective = Objective(PerceiverS(config)).to(device)
    forward = torch.compile(objective, dynamic=False, fullgraph=True) if GPU else objective
    optimizers = optim.build(objective.model, weight_decay=0.02)
    optim.set_rate(optimizers, 1e-3)
    taken = []
    with fast_arithmetic():
        for _ in range(2 + TRAINING_STEPS):
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=GPU):
                nats = forward(*inputs)
            (nats.sum(-1) * weight).mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if GPU:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    rate = float(weight.sum()) / float(np.median(taken[2:]))
    return {"events_a_second": rate, "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if GPU else 0.0}


def about(_: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Processor, GPU and version of PyTorch."""
    return {"machine": computer(), "device": torch.cuda.get_device_name() if GPU else "CPU", "torch": torch.__version__}


STEPS: dict[str, Callable[[str, dict[str, Any], Path], dict[str, Any]]] = {
    "machine": about,
    "exactness": exactness,
    "parity": parity,
    "latency": latency,
    "profile": profile,
    "training": training,
}


def main(step: str, options: dict[str, Any]) -> None:
    name, _, argument = step.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = STEPS[name](argument, options, Path(folder))
        except RuntimeUnavailable as reason:
            sys.exit(str(reason))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
