"""Step times on a CPU for variants of the bundled model: python -m benchmarks.choices [--count 300] [--rounds 3]

Measures the time to absorb one event with full rings, for the bundled model's shape and for variants with one setting changed:
key/value heads, the latents' window, the scales, threads, the precision of the weights. The variants take turns. The weights are
random, which does not affect the time. Two more rows show the effect of the rings' precision: they time one product of a query
with the keys of the long scale. The keys are stored in float32, or stored in float16 and converted to float32 first, as a CPU
without half-precision arithmetic must do.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from engine.checkpoint import bundled, read_config, save_model
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model import PerceiverS
from engine.runtimes.onnx import OnnxRuntime
from perceivers_live.commands.measuring import computer, improvised, timed
from trainer.export import write_onnx

import onnxruntime  # isort: skip -- after `engine`, which disables its telemetry

BUNDLED = read_config(bundled())[0]
CHANGES: dict[str, tuple[ModelConfig, int, bool]] = {  # name -> model, threads (0: the default), int8 weights
    "unchanged": (BUNDLED, 0, False),
    "4 key/value heads, one per query head": (dataclasses.replace(BUNDLED, kv_heads=4), 0, False),
    "1 key/value head": (dataclasses.replace(BUNDLED, kv_heads=1), 0, False),
    "a window of 512": (dataclasses.replace(BUNDLED, window=512), 0, False),
    "a window of 1024": (dataclasses.replace(BUNDLED, window=1024), 0, False),
    "only the short scale": (dataclasses.replace(BUNDLED, scales=BUNDLED.scales[:1]), 0, False),
    "a long scale of 32768": (dataclasses.replace(BUNDLED, scales=(BUNDLED.scales[0], 32768)), 0, False),
    "two threads": (BUNDLED, 2, False),
    "int8 weights": (BUNDLED, 0, True),
}


def event_timer(config: ModelConfig, threads: int, int8: bool, folder: Path) -> Callable[[int], float]:
    """A function that absorbs the event with a given number and returns the time in milliseconds."""
    torch.manual_seed(0)
    model = PerceiverS(config).eval()
    save_model(model, folder)
    write_onnx(model, folder, int8=int8)
    engine = Engine(OnnxRuntime(folder, threads=threads, int8=int8))
    rng = np.random.default_rng(0)
    engine.absorb(improvised(config.reach + config.slack, rng))
    events = improvised(10_000, rng)
    return lambda number: timed(lambda: engine.absorb([events[number]]))


def product_timer(half: bool) -> Callable[[int], float]:
    """A function that multiplies one query with the long scale's keys and returns the time in milliseconds. ``half``: the keys
    are stored in float16.
    """
    rows, width = BUNDLED.scales[-1], BUNDLED.head_dim
    dtype = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    keys = helper.make_tensor_value_info("keys", dtype, [rows, width])
    query = helper.make_tensor_value_info("query", TensorProto.FLOAT, [width, 1])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, 1])
    nodes = [helper.make_node("Cast", ["keys"], ["converted"], to=TensorProto.FLOAT)] if half else []
    nodes.append(helper.make_node("MatMul", ["converted" if half else "keys", "query"], ["scores"]))
    graph = helper.make_graph(nodes, "product", [keys, query], [scores])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"keys": np.ones((rows, width), np.float16 if half else np.float32), "query": np.ones((width, 1), np.float32)}
    return lambda _: timed(lambda: session.run(None, inputs))


@click.command()
@click.option("--count", default=300, show_default=True, help="Events per turn.")
@click.option("--rounds", default=3, show_default=True, help="Turns per variant.")
def main(count: int, rounds: int) -> None:
    warnings.simplefilter("ignore")
    with ExitStack() as closing:
        timers = {
            name: event_timer(*change, Path(closing.enter_context(tempfile.TemporaryDirectory())))
            for name, change in CHANGES.items()
        }
        timers |= {
            "keys of the long scale, float32": product_timer(False),
            "keys of the long scale, float16": product_timer(True),
        }
        taken: dict[str, list[float]] = {name: [] for name in timers}
        for turn in range(rounds):
            for name, run in timers.items():
                taken[name] += [run(number) for number in range(turn * count, (turn + 1) * count)]
    print(f"{computer()}; ms, n = {rounds * count}")
    print(f"{'':40}{'p50':>8}{'p95':>8}{'p99':>8}")
    for name, times in taken.items():
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        print(f"{name:40}{p50:8.3f}{p95:8.3f}{p99:8.3f}")


if __name__ == "__main__":
    main()
