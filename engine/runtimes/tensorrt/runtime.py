"""The ``tensorrt`` runtime: CUDA graphs of TensorRT plans. Until there are plans it uses the CUDA graphs of the ``cuda`` runtime,
while a separate process compiles them for the next start. Rings, staging and ring writes are those of the ``cuda`` runtime.

Plans are loaded only when the runtime is opened: deserialising, compiling kernels and capturing take longer than a call may take
while music plays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import install
from engine.runtimes import RuntimeUnavailable

try:
    import torch
except ImportError as error:
    raise RuntimeUnavailable(f"PyTorch is not installed ({install('tensorrt')})") from error

from torch import Tensor

from engine.graphs import decide_inputs, ring_names, step_inputs
from engine.runtimes.pytorch import SIZES, ChunkStep, Decision, Rings, TorchRuntime
from engine.runtimes.tensorrt.build import DTYPES, PlanError
from engine.runtimes.tensorrt.cache import PlanCache, PlanSpec, kernels_key, plan_specs, plans_folder
from engine.runtimes.tensorrt.compile_process import Compilation
from engine.runtimes.tensorrt.execute import KernelCache, Plan, PlanRejected, environment, load_tensorrt

log = logging.getLogger(__name__)
PRECISION = "fp16"  # that of the bundled weights; closer to float32 than bf16


class TensorRTRuntime(TorchRuntime):
    """``serving``: what is in use, cuda or tensorrt. Raises ``RuntimeUnavailable`` without TensorRT or a CUDA device."""

    def __init__(self, checkpoint: Path, *, threads: int = 0, precision: str = PRECISION, cache: PlanCache | None = None) -> None:
        self._trt = load_tensorrt()
        here = environment(self._trt)
        super().__init__(checkpoint, "cuda", threads=threads, precision=DTYPES[precision])
        self.name, self.serving = "tensorrt", "cuda"
        self._cache = cache or PlanCache(plans_folder())
        self._kernels_key = kernels_key(here)
        self._keys = {spec: spec.key(here) for spec in plan_specs(checkpoint, precision, SIZES)}
        self._compilation: Compilation | None = None
        if all(self._cache.get(key) is not None for key in self._keys.values()):
            self._load_plans()
            self.reset()  # capturing wrote into the rings
        elif refusal := next(filter(None, map(self._cache.refusal, self._keys.values())), None):
            log.info("no TensorRT plans: %s; CUDA graphs are used (perceivers-live compile tries again)", refusal)
        else:
            log.info("compiling TensorRT plans for the next start; CUDA graphs are used until then")
            self._compilation = Compilation(checkpoint, precision, SIZES, self._cache)

    def keep_warm(self) -> None:
        """Also logs when compiling has ended."""
        super().keep_warm()
        if self._compilation is not None and (outcome := self._compilation.outcome()) is not None:
            self._compilation.stop()
            self._compilation = None
            if outcome:
                log.warning("no TensorRT plans: %s; CUDA graphs remain in use", outcome)
            else:
                log.info("TensorRT plans are compiled; the next start uses them")

    def close(self) -> None:
        if self._compilation is not None:
            self._compilation.stop()

    def _load_plans(self) -> None:
        """Loads all plans and uses them. If one of them does not run, CUDA graphs remain in use."""
        stored = self._cache.get(self._kernels_key)
        kernels = KernelCache(stored)
        functions: dict[PlanSpec, ChunkStep | Decision] = {}
        for spec, key in self._keys.items():
            try:
                functions[spec] = self._checked_plan(spec, key, kernels)
            except (PlanError, RuntimeError) as error:
                log.warning("TensorRT plans do not run here (%s); CUDA graphs remain in use", error)
                if isinstance(error, PlanRejected):  # other errors may be temporary
                    self._cache.drop(key)
                return
        self._steps = {spec.count: one for spec, one in functions.items() if isinstance(one, ChunkStep)}
        self._decision = next(one for one in functions.values() if isinstance(one, Decision))
        self.serving = "tensorrt"
        compiled = kernels.serialize()
        if compiled is not None and compiled != stored:
            self._cache.put(self._kernels_key, compiled)
        log.info("TensorRT plans are in use")

    @torch.inference_mode()
    def _checked_plan(self, spec: PlanSpec, key: str, kernels: KernelCache) -> ChunkStep | Decision:
        """The captured function of a plan, after a check that it fills its outputs. Raises ``PlanError``, ``RuntimeError``."""
        compiled = self._cache.get(key)
        if compiled is None:
            raise PlanError("a plan is no longer in the cache")
        function: ChunkStep | Decision
        if spec.part == "decide":
            plan = Plan(self._trt, compiled, list(decide_inputs(self._model)), {}, kernels)
            function = Decision(self._rings, lambda *inputs: plan(*inputs)[0], _capturable(plan))
        else:
            rings = dict(zip(ring_names(self.config), self._rings.keys_values, strict=True))
            plan = Plan(self._trt, compiled, list(step_inputs(self._model, spec.count)), rings, kernels)
            function = ChunkStep(self._rings, spec.count, _rows(plan, self._rings), _capturable(plan))
        plan.poison()
        function.rerun()
        plan.check_ran()
        return function


def _rows(plan: Callable[..., Sequence[Tensor]], rings: Rings) -> Callable[..., Sequence[Tensor]]:
    """A step's plan as the body of a ``ChunkStep``."""

    def rows(*inputs: Tensor) -> Sequence[Tensor]:
        *events, begin = inputs
        hidden, *new = plan(*events, *rings.held(events[2], begin))
        return [*rings.stacked(new), hidden]

    return rows


def _capturable(plan: Plan) -> Callable[[], None]:
    """Raises ``PlanError`` if a CUDA graph cannot capture the plan on the current stream."""

    def check() -> None:
        if not plan.capturable(torch.cuda.current_stream().cuda_stream):
            raise PlanError("TensorRT-RTX still compiles kernels, which cannot be captured")

    return check
