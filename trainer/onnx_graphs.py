"""The step as a graph for ONNX Runtime on a CPU, where the time of a step depends on the bytes read and on the number of
operators.

It computes ``PerceiverS.step``, up to rounding, and is written operator by operator; an exported graph has a third more
operators:

- The graph contains only the names of the weights: ``engine.runtimes.onnx_weights`` makes them. Queries, keys and values of the
  same source are one product. Each residual sum and the norm after it are one operator of ONNX Runtime.
- New keys and values are written into the window in place (inputs and outputs are bound to the same memory), so that the scores
  of an event are one product. A window has more rows than one event sees, for the events of the largest chunk.
- Keys of a long window are stored transposed, because ONNX Runtime would otherwise transpose them in every step.
- Each query head has its own product with the window, because ONNX Runtime would copy the window for a joint one.

Shapes: T new events, D width, G key/value heads, J queries of each, C head size, R rows of a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.config import ModelConfig
from engine.runtimes.onnx_weights import block_names, shared
from engine.runtimes.onnx_windows import keys_transposed, window_rows
from engine.sounding import AGES

OPSET = 23  # the first with RMSNormalization as one operator
EPSILON = 1e-6
EXTERNAL = "given-when-opened"  # location of the weights; not a file, the runtime supplies them
COUNT = "count"  # name of the axis of new events
MICROSOFT = "com.microsoft"
TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int8): TensorProto.INT8}


def step_graph(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The step, for the weights of ``step_weights`` or ``quantized``."""
    graph, groups, size = Graph(config, weights), config.kv_heads, config.head_dim
    for i, window in enumerate((*config.scales, config.window)):
        graph.input(f"mask{i}", TensorProto.FLOAT, COUNT, window_rows(window))
        if keys_transposed(window):
            graph.input(f"columns{i}", TensorProto.INT64, groups, 1, size, COUNT)
        graph.input(f"rows{i}", TensorProto.INT64, groups, 1, COUNT, 3)
    for i, window in enumerate(config.windows):
        shape = window_rows(window), size
        graph.input(f"k{i}", TensorProto.FLOAT, groups, 1, *(reversed(shape) if keys_transposed(window) else shape))
        graph.input(f"v{i}", TensorProto.FLOAT, groups, 1, *shape)
    e = graph.embedded()
    stream = Stream(graph, e)
    normed_e = stream.normed()
    for i, name in enumerate(block_names(config)):
        crosses = i < len(config.scales)
        side_by_side = crosses and config.combine == "sum"
        normed = normed_e if side_by_side else stream.normed()
        out = graph.attended(i, name, normed, normed_e if crosses else normed)
        stream.add(out)
        if side_by_side:  # the sum of all stages' outputs, each computed from the embedding
            alone = Stream(graph, e)
            alone.add(out)
            stream.add(graph.mlp(name, alone.normed()))
        else:
            stream.add(graph.mlp(name, stream.normed()))
    stream.sum("hidden")
    graph.output("hidden", COUNT, config.width)
    return graph.model()


def prefill_cross_graph(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """``PerceiverS.prefill_cross``: new rows of the cross-attention stages, for the weights of ``prefill_cross_weights``."""
    graph = Graph(config, weights)
    normed = Stream(graph, graph.embedded()).normed()
    for i, name in enumerate(block_names(config)[: len(config.scales)]):
        key, _ = graph.split(graph.by_head(graph.product(normed, f"{name}.key_value")), ("", 1), (f"new_v{i}", 1))
        graph.rotated(key, f"{name}.key_gains", output=f"new_k{i}")
        graph.new_rows(i)
    return graph.model()


def without_weights(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Removes the contents of the weights from an exported graph. Raises ``ValueError`` if a
    weight's name is not in the graph.
    """
    found = [(i, proto.name) for i, proto in enumerate(model.graph.initializer) if proto.name in weights]
    if missing := weights.keys() - {name for _, name in found}:
        raise ValueError(f"the exporter has renamed {', '.join(sorted(missing))}")
    for i, name in found:
        model.graph.initializer[i].CopyFrom(_declared(name, weights[name]))
    return model


def _declared(name: str, array: np.ndarray) -> onnx.TensorProto:
    """Declares a weight by name, type and shape; the runtime supplies its content."""
    proto = onnx.TensorProto(name=name, data_type=TYPES[array.dtype], dims=array.shape, data_location=TensorProto.EXTERNAL)
    proto.external_data.add(key="location", value=EXTERNAL)
    return proto


class Graph:
    """A builder of graphs. Methods add operators; they take and return names of values."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, np.ndarray]) -> None:
        self._config, self._weights = config, weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, *shape: int | str) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, *shape: int | str) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def node(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray | Sequence[int]) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def weight(self, name: str) -> str:
        self._constants[name] = _declared(name, self._weights[name])
        return name

    def split(self, x: str, *parts: tuple[str, int]) -> list[str]:
        """Splits x [G, n, T, C] along the axis of heads. parts: name (empty: generated) and number of heads."""
        outputs = [name or f"t{len(self._nodes)}.{i}" for i, (name, _) in enumerate(parts)]
        sizes = [size for _, size in parts]
        lengths = self.constant(f"split_{'_'.join(map(str, sizes))}", sizes)
        self._nodes.append(helper.make_node("Split", [x, lengths], outputs, axis=1))
        return outputs

    def product(self, x: str, name: str) -> str:
        weight = self.weight(name)
        if self._weights[name].dtype == np.int8:
            return self.node("DynamicQuantizeMatMul", x, weight, self.weight(f"{name}.scale"), domain=MICROSOFT)
        return self.node("MatMul", x, weight)

    def ones(self) -> str:
        return self.constant("ones", np.ones(self._config.width, np.float32))

    def added_and_normed(self, x: str, y: str) -> tuple[str, str]:
        """x + y, and its RMSNorm without gains."""
        total, normed = f"t{len(self._nodes)}.sum", f"t{len(self._nodes)}"
        inputs, outputs = [x, y, self.ones()], [normed, "", "", total]
        kind = "SkipSimplifiedLayerNormalization"
        self._nodes.append(helper.make_node(kind, inputs, outputs, domain=MICROSOFT, epsilon=EPSILON))
        return total, normed

    def embedded(self) -> str:
        """Adds the inputs common to all graphs; returns the events' embeddings [T, D]."""
        angles = (self._config.kv_heads, COUNT, self._config.head_dim // 2)
        self.input("events", TensorProto.INT64, COUNT, 3)  # rows of the embedding table
        self.input("sounding", TensorProto.FLOAT, COUNT, 2 * AGES)
        self.input("cos", TensorProto.FLOAT, *angles)
        self.input("sin", TensorProto.FLOAT, *angles)
        fields = self.node("Gather", self.weight("fields"), "events")
        total = self.node("ReduceSum", fields, self.constant("axis", [1]), keepdims=0)
        return self.node("Gemm", "sounding", self.weight("ages"), total)

    def by_head(self, x: str) -> str:
        """[T, G * n * C] -> [G, n, T, C]."""
        shape = self.constant("by_head", [0, self._config.kv_heads, -1, self._config.head_dim])
        return self.node("Transpose", self.node("Reshape", x, shape), perm=[1, 2, 0, 3])

    def rotated(self, x: str, gains: str, output: str = "") -> str:
        """RMSNorm with gains, then rotary embedding. x [G, n, T, C]."""
        ones = self.constant("ones_by_head", np.ones(self._config.head_dim, np.float32))
        normed = self.node("Mul", self.node("RMSNormalization", x, ones, epsilon=EPSILON), self.weight(gains))
        return self.node("RotaryEmbedding", normed, "cos", "sin", output=output)

    def new_rows(self, block: int) -> None:
        """Adds a block's new keys and values [G, 1, T, C] as outputs."""
        for kind in "kv":
            self.output(f"new_{kind}{block}", self._config.kv_heads, 1, COUNT, self._config.head_dim)

    def attended(self, block: int, name: str, normed: str, source: str) -> str:
        """Attention of a block over its window including the new rows: [T, D]. Queries come from ``normed``, keys and values from
        ``source``.
        """
        config, each = self._config, shared(self._config)
        groups, size, rows = config.kv_heads, config.head_dim, window_rows(config.windows[block])
        kind = min(block, len(config.scales))
        if normed == source:
            made = self.by_head(self.product(normed, f"{name}.query_key_value"))
        else:
            pair = (self.by_head(self.product(normed, f"{name}.query")), self.by_head(self.product(source, f"{name}.key_value")))
            made = self.node("Concat", *pair, axis=1)  # [G, J + 2, T, C]
        queries_key, value = self.split(made, ("", each + 1), (f"new_v{block}", 1))
        query, key = self.split(self.rotated(queries_key, f"{name}.gains"), ("", each), (f"new_k{block}", 1))
        self.new_rows(block)
        values = self.node("ScatterND", f"v{block}", f"rows{kind}", value, output=f"kept_v{block}")
        self.output(values, groups, 1, rows, size)
        if keys_transposed(config.windows[block]):
            key = self.node("Transpose", key, perm=[0, 1, 3, 2])
            keys = self.node("ScatterElements", f"k{block}", f"columns{kind}", key, axis=3, output=f"kept_k{block}")
            self.output(keys, groups, 1, size, rows)
            scores = self.node("MatMul", query, keys)  # [G, J, T, R]
        else:
            keys = self.node("ScatterND", f"k{block}", f"rows{kind}", key, output=f"kept_k{block}")
            self.output(keys, groups, 1, rows, size)
            scores = self.node("FusedMatMul", query, keys, transB=1, domain=MICROSOFT)
        scores = self.node("Add", scores, f"mask{kind}")
        found = self.node("MatMul", self.node("Softmax", scores, axis=-1), values)  # [G, J, T, C]
        by_event = self.node("Transpose", found, perm=[2, 0, 1, 3])
        flat = self.node("Reshape", by_event, self.constant("by_event", [-1, config.width]))
        return self.product(flat, f"{name}.out")

    def mlp(self, name: str, normed: str) -> str:
        return self.product(self.node("Gelu", self.product(normed, f"{name}.up")), f"{name}.down")

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "graph", self._inputs, self._outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="perceivers-live")


class Stream:
    """The residual stream [T, D]: a sum, whose last summand may be pending."""

    def __init__(self, graph: Graph, x: str) -> None:
        self._graph, self._sum, self._pending = graph, x, ""
        self._normed = ""

    def add(self, x: str) -> None:
        self._sum, self._pending, self._normed = self.sum(), x, ""

    def sum(self, output: str = "") -> str:
        if self._pending:
            self._sum, self._pending = self._graph.node("Add", self._sum, self._pending, output=output), ""
        return self._sum

    def normed(self) -> str:
        """RMSNorm without gains, which are part of the weights."""
        graph = self._graph
        if not self._normed and self._pending:
            self._sum, self._normed = graph.added_and_normed(self._sum, self._pending)
            self._pending = ""
        elif not self._normed:
            self._normed = graph.node("RMSNormalization", self._sum, graph.ones(), epsilon=EPSILON)
        return self._normed
