"""How many kernels an event takes on a GPU, counted on a CPU: each costs about a microsecond in a CUDA graph."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._inductor.graph import GraphLowering  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from engine.config import PRESETS  # noqa: E402
from engine.events import START_EVENT  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes.pytorch import TorchRuntime, compile_body  # noqa: E402
from engine.sounding import AGES  # noqa: E402

LAUNCHES = re.compile(
    r"cpp_fused_\w+\(|extern_kernels\.\w+\(|torch\.ops\.aten\.\w+\.\w+\(|aten\.\w+\("
)  # in Inductor's code for a CPU
ONE = np.array([START_EVENT], np.int64), np.full((1, AGES), -1, np.int16), np.zeros(1, np.int64)


class Operators(TorchDispatchMode):
    """Counts operators that compute something. Views and allocations start no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = [result for result in function._schema.returns if result.alias_info and not result.alias_info.is_write]
        if not views and "empty" not in str(function):
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def base() -> TorchRuntime:
    return TorchRuntime(PerceiverS(PRESETS["base"]).eval())


def counted(run: Callable[[], object]) -> Counter[str]:
    with torch.no_grad(), Operators() as operators:
        run()
    return operators.counts


def test_all_attentions_of_a_window_are_written_by_one_operator(base: TorchRuntime) -> None:
    counts = counted(base._steps[1]._run)
    assert counts["index_copy_"] == len(base.config.scales) + 2  # the latents, and the hidden states


class NotCompiled(Exception):
    """Stops Inductor once its code is there."""


def generated_code(body: Callable[..., Any], *given: torch.Tensor) -> str:
    """The code that Inductor generates for ``body``."""
    codes: list[str] = []

    def keep(graph: GraphLowering) -> None:
        codes.append(graph.codegen()[0].value)
        raise NotCompiled

    torch._dynamo.reset()
    with mock.patch.object(GraphLowering, "compile_to_module", keep), contextlib.suppress(Exception):  # Dynamo wraps it
        compile_body(body)(*given)
    (code,) = codes
    return code


def compiled_kernels(layers: int) -> int:
    """Kernels that Inductor generates, and library calls that it leaves, for the step and the decision. Nothing is compiled."""
    runtime = TorchRuntime(PerceiverS(dataclasses.replace(PRESETS["base"], layers=layers)).eval())
    step, decision = runtime._steps[1], runtime._decision
    inputs = list(step._staging.device.values()), [runtime._rings.hidden[0], *list(decision._staging.device.values())[1:]]
    total = 0
    with torch.inference_mode():
        for body, given in zip((step._body, decision._body), inputs, strict=True):
            code = generated_code(body, *given)
            total += len(LAUNCHES.findall(code[code.index("def call(") :]))
    return total


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_an_event_of_base_takes_at_most_200_compiled_kernels() -> None:
    """Every latent layer adds the same number of kernels, so two small models tell that of a large one."""
    one, two = compiled_kernels(1), compiled_kernels(2)
    outside = 2 * (len(PRESETS["base"].scales) + 2) + 4  # ring writes and their indices; the hidden row and the result
    total = one + (two - one) * (PRESETS["base"].layers - 1) + outside
    assert two > one
    assert 80 < total <= 200
