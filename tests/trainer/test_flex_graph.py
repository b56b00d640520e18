"""Training on a GPU is traced as one graph that contains FlexAttention, without graph breaks. Traced here on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tqdm")  # a dependency of the trainer

from engine.attention import PastAttention  # noqa: E402
from engine.config import PRESETS  # noqa: E402
from engine.model import PerceiverS  # noqa: E402
from engine.sounding import ages_of  # noqa: E402
from tests.music import improvise  # noqa: E402
from trainer.train import Objective  # noqa: E402

LATENTS = 30


def test_the_objective_is_one_graph_with_an_attention_operator_for_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PRESETS["tiny"]
    torch.manual_seed(1)
    objective = Objective(PerceiverS(config)).requires_grad_(False)  # on a CPU, FlexAttention has no backward pass
    music = np.array(improvise(80, seed=4))
    events, ages, times = music[:-1], ages_of(music[:-1]), music[:-1, 0].cumsum()
    inputs = [
        torch.from_numpy(one)[None] for one in (events, ages, np.arange(len(events)), times, np.ones(len(events), np.float32))
    ]
    targets = torch.from_numpy(music[-LATENTS:])[None]
    expected = objective(*inputs, targets)
    monkeypatch.setattr(PastAttention, "__call__", PastAttention.flex)  # as on a GPU
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(objective, fullgraph=True, dynamic=False, backend=keep)
    found = compiled(*inputs, targets)
    assert torch.allclose(found, expected, atol=1e-4)
    (graph,) = graphs
    attentions = [node for node in graph.graph.nodes if node.target is torch.ops.higher_order.flex_attention]
    assert len(attentions) == len(config.scales) + config.layers
