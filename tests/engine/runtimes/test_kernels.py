"""How many kernels an event takes on a GPU, counted on a CPU: each costs about a microsecond in a CUDA graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from engine.config import PRESETS  # noqa: E402
from engine.events import START_EVENT  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes.pytorch import TorchRuntime  # noqa: E402
from engine.sounding import AGES  # noqa: E402

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
