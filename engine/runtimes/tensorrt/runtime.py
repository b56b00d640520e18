"""The ``tensorrt`` runtime: CUDA graphs around TensorRT plans. Until its plans are compiled, in a process of their own, it serves
from the CUDA graphs of the ``cuda`` runtime, which it is otherwise: the same rings, staging and ring writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.errors import install
from engine.runtimes import CHUNKS, RuntimeUnavailable

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable(f"PyTorch is not installed ({install('tensorrt')})") from error

from torch import Tensor

from engine.graphs import decide_inputs, ring_names, step_inputs
from engine.runtimes.pytorch import ChunkStep, Decision, TorchRuntime
from engine.runtimes.tensorrt.build import DTYPES, PlanError
from engine.runtimes.tensorrt.cache import PlanCache, PlanSpec, cache_folder, plan_specs
from engine.runtimes.tensorrt.compile_process import Compilation
from engine.runtimes.tensorrt.execute import Plan, Unreadable, environment, load_tensorrt

log = logging.getLogger(__name__)
PRECISION = "fp16"  # what the bundled weights are stored in; nearer to float32 than bf16


class TensorRTRuntime(TorchRuntime):
    """``serving`` says what computes now: cuda or tensorrt. Raises ``RuntimeUnavailable`` without TensorRT or a CUDA device."""

    def __init__(self, checkpoint: Path, *, threads: int = 0, precision: str = PRECISION, cache: PlanCache | None = None) -> None:
        self._trt = load_tensorrt()
        here = environment(self._trt)
        super().__init__(checkpoint, "cuda", threads=threads, precision=DTYPES[precision])
        self.name, self.serving = "tensorrt", "cuda"
        self._cache = cache or PlanCache(cache_folder())
        self._keys = {spec: spec.key(here) for spec in plan_specs(checkpoint, precision, CHUNKS)}
        self._compilation: Compilation | None = None
        self._change: Iterator[None] = iter(())
        if all(self._cache.get(key) is not None for key in self._keys.values()):
            for _ in self._take_plans():
                pass
        else:
            log.info("TensorRT plans are being compiled; CUDA graphs serve meanwhile")
            self._compilation = Compilation(checkpoint, precision, CHUNKS, self._cache)

    def keep_warm(self) -> None:
        """Idle: also the moment to take the plans, once they are there. One at a time: whoever plays on must not wait for all."""
        super().keep_warm()
        if self._compilation is not None and (outcome := self._compilation.outcome()) is not None:
            self._compilation.stop()
            self._compilation = None
            if outcome:
                log.warning("no TensorRT plans: %s; CUDA graphs go on", outcome)
            else:
                self._change = self._take_plans()
        next(self._change, None)

    def close(self) -> None:
        if self._compilation is not None:
            self._compilation.stop()

    def _take_plans(self) -> Iterator[None]:
        """Makes one plan ready at each step, and serves from them with the last; if they do not run here, nothing has changed."""
        functions: dict[PlanSpec, ChunkStep | Decision] = {}
        for spec, key in self._keys.items():
            if functions:
                yield
            try:
                functions[spec] = self._ready(spec, key)
            except (PlanError, RuntimeError) as error:
                log.warning("TensorRT's plans do not run here (%s); CUDA graphs go on", error)
                if isinstance(error, Unreadable):  # all else may be better another time
                    self._cache.drop(key)
                return
        self._steps = {spec.count: one for spec, one in functions.items() if isinstance(one, ChunkStep)}
        self._decision = next(one for one in functions.values() if isinstance(one, Decision))
        self.serving = "tensorrt"
        log.info("TensorRT serves")

    @torch.inference_mode()
    def _ready(self, spec: PlanSpec, key: str) -> ChunkStep | Decision:
        """What runs a plan, captured, with the rings as they were. Raises ``PlanError``, ``RuntimeError``."""
        saved = [ring.clone() for ring in self._rings]  # capturing runs everything a few times
        try:
            return self._function(spec, key)
        finally:
            for ring, old in zip(self._rings, saved, strict=True):
                ring.copy_(old)

    def _function(self, spec: PlanSpec, key: str) -> ChunkStep | Decision:
        """What runs a plan, proven to fill its outputs. Raises ``PlanError``, ``RuntimeError``."""
        compiled = self._cache.get(key)
        if compiled is None:
            raise PlanError("a plan has gone from the cache")
        function: ChunkStep | Decision
        if spec.part == "decide":
            plan = Plan(self._trt, compiled, list(decide_inputs(self._model)), {})
            function = Decision(lambda *inputs: plan(*inputs)[0], self._rings[-1], _capturable(plan))
        else:
            rings = dict(zip(ring_names(self.config), self._rings, strict=False))
            plan = Plan(self._trt, compiled, list(step_inputs(self._model, spec.count)), rings)
            function = ChunkStep(self.config, spec.count, _rows(plan), self._rings, _capturable(plan))
        plan.poison()
        function.again()
        plan.check_ran()
        return function


def _rows(plan: Plan) -> Callable[..., Sequence[Tensor]]:
    """A step's plan as ``ChunkStep`` wants it: the hidden states' rows last."""

    def rows(*inputs: Tensor) -> Sequence[Tensor]:
        hidden, *new = plan(*inputs)
        return [*new, hidden]

    return rows


def _capturable(plan: Plan) -> Callable[[], None]:
    """Raises ``PlanError`` if a CUDA graph cannot capture the plan on the current stream."""

    def check() -> None:
        if not plan.capturable(torch.cuda.current_stream().cuda_stream):
            raise PlanError("TensorRT-RTX still compiles kernels, which cannot be captured")

    return check
