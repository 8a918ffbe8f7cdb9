"""Random quantised networks as QONNX files: what frontends of all kinds may write, and worse.

`random_graph(seed)` is reproducible; `features` restricts it to some of what it can do, so that a
failure is narrowed down by taking features away (hypothesis does that by itself).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from support.graph_writer import FEATURES, SAMPLES, Tensor, Writer

OPSET = 13


def random_graph(seed: int, features: Collection[str] = FEATURES) -> onnx.ModelProto:
    """A network of one to four linear layers of one to twelve neurons."""
    w = Writer(seed, features)
    x = _input(w, "x")
    for _ in range(int(w.rng.integers(1, 4))):
        x = _layer(w, x)
    outputs = [_head(w, x)]
    if w.has("two_outputs", 0.2):
        outputs.append(_head(w, x) if w.rng.random() < 0.5 else x)
    return finish(w, outputs)


def graphs() -> st.SearchStrategy[onnx.ModelProto]:
    """Random networks; fewer features first."""
    some = st.frozensets(st.sampled_from(sorted(FEATURES)))
    return st.builds(random_graph, st.integers(0, 2**32 - 1), st.one_of(some, st.just(FEATURES)))


def _input(w: Writer, name: str) -> Tensor:
    n = int(w.rng.integers(1, 13))
    shape: tuple[int, ...] = (n,)
    if w.has("flatten", 0.25):
        shape = w.pick((n, 1, 1), (1, 2, 3), (2, 2, 2), (3, 2))
    dims = [w.pick("N", "batch", 1), *shape]
    w.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    x = Tensor(name, np.float32(w.rng.normal(0, 1, (SAMPLES, *shape))))
    if w.has("head", 0.2):
        x = w.constant(x)
    flat_first = len(shape) > 1 and w.rng.random() < 0.5
    if flat_first:
        x = _flat(w, x)
    if not w.has("no_input_quantiser", 0.1):
        x = w.activation(x)
    return x if len(shape) == 1 or flat_first else _flat(w, x)


def _flat(w: Writer, x: Tensor) -> Tensor:
    values = x.values.reshape(SAMPLES, -1)
    if w.rng.random() < 0.5:
        return w.op("Flatten", [x.name], values, axis=1)
    target = w.const("shape", [-1, values.shape[1]], np.int64)
    return w.op("Reshape", [x.name, target], values)


def _layer(w: Writer, x: Tensor) -> Tensor:
    """A linear layer up to its quantiser, perhaps with a branch beside it or around it."""
    columns = int(w.rng.integers(1, 13))
    if w.has("relu_before", 0.1):
        x = w.relu(x)
    if w.has("residual", 0.2):
        return _residual(w, x)
    if w.has("fan_out", 0.15):
        other = w.activation(w.between(w.linear(x, columns)))
        shared = w.weight(x.values.shape[1], columns, transpose=False)
        both = [w.between(w.linear(x, columns, shared)) for _ in range(2)]
        if w.has("shared_weight", 0.5):
            x = w.op("Add", [other.name, other.name], 2 * other.values)
            return x if w.rng.random() < 0.5 else w.activation(x)
        return _sum(w, both[0], both[1], x)
    if w.has("two_inputs", 0.05):
        side = _input(w, w.name("x"))
        one, two = (w.between(w.linear(v, columns)) for v in (x, side))
        return _sum(w, one, two, x)
    out = w.between(w.linear(x, columns))
    if w.has("operator", 0.01):
        op = str(w.pick("Sigmoid", "Abs", "Sqrt"))
        out = w.op(op, [out.name], np.abs(out.values))
    if w.has("float_activation", 0.01):
        return out
    if w.has("channel_scale_before_linear", 0.01):
        scale = np.float32(w.rng.uniform(0.1, 0.3, (1, columns)))
        return w.quant(out.name, out.values, scale, 0.0, 4, signed=True)
    return w.activation(out)


def _sum(w: Writer, one: Tensor, two: Tensor, like: Tensor) -> Tensor:
    """Both on one grid, or not, added up."""
    if w.has("float_residual", 0.1):
        return w.activation(w.op("Add", [one.name, two.name], one.values + two.values))
    scale = w.scale(0.1)
    bits = int(w.rng.integers(2, 9))
    zero = float(w.rng.integers(-2, 3)) if w.has("zero_point", 0.2) else 0.0
    other = w.scale(0.2) if w.has("residual_scales", 0.1) else scale
    q1 = w.quant(one.name, one.values, scale, zero, bits, signed=True)
    q2 = w.quant(two.name, two.values, other, zero, bits + int(w.rng.integers(3)), signed=True)
    if w.has("relu", 0.2):
        q2 = w.relu(q2)
    out = w.op("Add", [q1.name, q2.name], q1.values + q2.values)
    if w.has("relu", 0.3):
        out = w.relu(out)
    return out if w.rng.random() < 0.4 else w.activation(out)


def _residual(w: Writer, x: Tensor) -> Tensor:
    """y = Q(x) + Q(layers(x))."""
    inner = w.activation(w.between(w.linear(x, int(w.rng.integers(1, 13)))))
    return _sum(w, w.between(w.linear(inner, x.values.shape[1])), x, x)


def _head(w: Writer, x: Tensor) -> Tensor:
    out = w.between(w.linear(x, int(w.rng.integers(1, 7))))
    if not w.has("float_output", 0.4):
        out = w.activation(out)
    if w.has("host_scale", 0.15):
        out = w.constant(out)
    if w.has("softmax", 0.15):
        return w.op("Softmax", [out.name], out.values, axis=1)
    return out


def finish(w: Writer, outputs: list[Tensor]) -> onnx.ModelProto:
    """What has been written, as a file."""
    names = dict.fromkeys(t.name for t in outputs)
    known = {info.name: info for info in w.infos}
    graph = helper.make_graph(
        w.nodes,
        "random",
        w.inputs,
        [known.pop(name) for name in names],
        w.constants,
        value_info=list(known.values()),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(w.domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
