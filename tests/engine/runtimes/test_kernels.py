"""The number of GPU kernels for an event, counted on a CPU. Each costs about a microsecond in a CUDA graph."""

from __future__ import annotations

import dataclasses
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._inductor import config as inductor  # noqa: E402
from torch._inductor.async_compile import AsyncCompile  # noqa: E402
from torch._inductor.utils import run_and_get_code  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from engine.config import PRESETS  # noqa: E402
from engine.events import START_EVENT  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes.pytorch import TorchRuntime, compile_body  # noqa: E402
from engine.sounding import AGES  # noqa: E402

CALLS = re.compile(
    r"(?:cpp_fused\w*|extern_kernels\.\w+|torch\.ops\.\w+\.\w+\.\w+|aten\.\w+)\("
)  # of kernels, in Inductor's code
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


def count_operators(run: Callable[[], object]) -> Counter[str]:
    with torch.no_grad(), Operators() as operators:
        run()
    return operators.counts


def test_one_operator_writes_the_rows_of_all_attentions_with_the_same_window(base: TorchRuntime) -> None:
    counts = count_operators(base._steps[1]._run)
    assert counts["index_copy_"] == len(base.config.scales) + 2  # the latents, and the hidden states


def count_kernel_calls(body: Callable[..., Any], *given: torch.Tensor) -> int:
    """The number of kernel calls in the code that Inductor generates for ``body``. The kernels are not compiled."""
    torch._dynamo.reset()
    no_kernels = mock.patch.object(AsyncCompile, "cpp_pybinding", return_value=lambda *_: None)
    with torch.inference_mode(), inductor.patch(force_disable_caches=True), no_kernels, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, (code,) = run_and_get_code(compile_body(body), *given)
    return len(CALLS.findall(code[code.index("def call(") :]))


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_an_event_of_the_base_model_takes_at_most_200_compiled_kernels() -> None:
    """Each latent layer adds the same number of kernels, so models with one and two layers suffice to compute it."""
    steps = []
    for layers in (1, 2):
        runtime = TorchRuntime(PerceiverS(dataclasses.replace(PRESETS["base"], layers=layers)).eval())
        steps.append(count_kernel_calls(runtime._steps[1]._body, *runtime._steps[1]._staging.device.values()))
    decision = runtime._decision
    decide = count_kernel_calls(decision._body, runtime._rings.hidden[0], *list(decision._staging.device.values())[1:])
    config = runtime.config
    outside = 2 * (len(config.scales) + 2) + 4  # ring writes and their indices; the hidden state's row and the result
    layer = steps[1] - steps[0]
    total = steps[0] + layer * (PRESETS["base"].layers - 1) + decide + outside
    assert layer >= 4  # at least query, key and value; attention; output; MLP
    assert total <= 200
