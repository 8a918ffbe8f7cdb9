"""Post-training quantisation of a float model: where quantisers go, and scales from samples.

Quantisers are put on the weights of each linear node (symmetric, one scale per output channel), on
the data that enters linear nodes, averages and products, and on outputs that no softmax or the like
follows. The parts of a sum or of a concatenation get a quantiser each, all on one scale, so that
codes can be added. Biases stay floats: they fold exactly into the requantisation later. Scales
minimise the mean squared error over the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from hqc.diagnostics import reject
from hqc.frontends.torch_export.batchnorm_folding import Linear, fold_batch_norms
from hqc.ir import Array, boundaries, constant, derive, from_bytes, nodes, set_source, to_bytes
from hqc.ir.edits import redirect
from hqc.ir.operators import Quant, is_quantiser
from hqc.numerics.types import Rounding

_BY = "quantize"
#: Operators that move values, or pick some, without computing new ones.
_MOVES = {
    *("Flatten", "Reshape", "Transpose", "Identity", "Dropout", "Squeeze", "Unsqueeze", "MaxPool"),
    *("GlobalMaxPool", "Slice", "Split", "Gather", "Expand", "DepthToSpace", "ReduceMax"),
}
_AVERAGES = {"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"}
#: Operators whose data must be on a grid for an exact integer form, beside linear ones.
_NEEDS_GRID = {*_AVERAGES, "Mul"}
#: Operators whose parts must share one grid.
_SHARES_GRID = {"Add", "Sub", "Concat"}
#: Results that a host computes after the exact part.
_HOST_TAIL = {"Softmax", "LogSoftmax", "Sigmoid", "ArgMax"}
_NOT_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Softplus", "Abs", "Exp"}
_MAX_VALUES = 1 << 15
_CANDIDATES = np.linspace(0.25, 1.0, 31)


def require_quantised(model: Model) -> None:
    """Refuse a float model.

    Raises:
        HqcError: HQC103, no node of the model is a quantiser.
    """
    if not any(is_quantiser(node) for node in model.graph):
        raise reject(
            "HQC103",
            "the model has no quantisers: its values are floats, which hardware codes cannot hold",
            helps=(
                "train it with the layers of hqc.frontends.torch (QuantLinear, QuantReLU, ...)",
                "or with Brevitas",
                "or quantise it after training: --quantize 8 --samples samples.npz",
            ),
        )


def quantise(
    model: Model,
    bits: int,
    samples: Mapping[str, Array] | None,
    *,
    power_of_two: bool = False,
) -> Model:
    """A quantised copy of a float model.

    Args:
        model: standard ONNX operators only.
        bits: width of weight and activation codes, 2 to 16.
        samples: representative inputs by input name, each (n, ...); a hundred or more.
        power_of_two: round scales up to powers of two.

    Raises:
        HqcError: HQC103 without samples; HQC005 samples that do not fit; HQC107 a bad width;
            HQC001 a model that is quantised already, or has nothing to quantise.
    """
    if not 2 <= bits <= 16:
        raise reject("HQC107", f"cannot quantise to {bits} bits: 2 to 16 are possible")
    if any(is_quantiser(node) for node in model.graph):
        raise reject("HQC001", "the model is quantised already", helps=("leave out --quantize",))
    copy = from_bytes(to_bytes(model), "the model")
    inputs = _check_samples(copy, samples)
    fold_batch_norms(copy)
    linears = [linear for node in copy.graph if (linear := Linear.of(node)) is not None]
    if not linears:
        raise reject("HQC001", "the model has no linear layers or convolutions to quantise")
    roots, joins = _roots(copy), _joins(copy)
    wanted = dict.fromkeys([*roots, *(value for node in joins for value in _data(node))])
    recorded = _record(copy, list(wanted), inputs)
    for linear in linears:
        _quantise_weight(copy, linear, bits, power_of_two)
    for node in joins:
        seen = [recorded[str(value.name)] for value in _data(node)]
        _quantise_parts(copy, node, seen, bits, power_of_two)
    for root in roots:
        _quantise_value(copy, root, recorded[str(root.name)], bits, power_of_two)
    return copy


def _check_samples(model: Model, samples: Mapping[str, Array] | None) -> dict[str, Array]:
    if not samples:
        raise reject(
            "HQC103",
            "quantising a float model takes samples of its inputs",
            helps=("pass --samples samples.npz with a hundred or more typical inputs",),
        )
    found, counts = {}, set()
    for boundary in boundaries(model.graph.inputs):
        array = samples.get(boundary.name)
        if array is None and len(samples) == 1 and len(model.graph.inputs) == 1:
            array = next(iter(samples.values()))
        shape = None if array is None else tuple(np.shape(array))
        if array is None or shape is None or shape[1:] != boundary.shape or not shape[0]:
            raise reject(
                "HQC005",
                f"samples for {boundary.name} have shape {shape}, not (n, "
                f"{', '.join(map(str, boundary.shape))})",
                notes=(f"samples are given for: {', '.join(map(str, samples))}",),
            )
        if not np.all(np.isfinite(array)):
            raise reject("HQC005", f"samples for {boundary.name} hold NaN or infinity")
        found[boundary.name] = np.asarray(array, np.float32)
        counts.add(shape[0])
    if len(counts) != 1:
        raise reject("HQC005", f"inputs have different numbers of samples: {sorted(counts)}")
    return found


def _roots(model: Model) -> list[Value]:
    """The values that get an activation quantiser, in graph order."""
    found: dict[Value, None] = {}
    for node in nodes(model.graph):
        for value in _grid_inputs(node):
            found.setdefault(_origin(value))
    for value in model.graph.outputs:
        origin = _origin(value)
        maker = origin.producer()
        if maker is not None and maker.op_type not in _HOST_TAIL:
            found.setdefault(origin)
    return list(found)


def _grid_inputs(node: Node) -> list[Value]:
    """The data of a node that gets quantisers of its own."""
    if node.domain:
        return []
    data = _data(node)
    if Linear.of(node) is not None or node.op_type in _AVERAGES:
        return data[:1]
    if node.op_type in {*_NEEDS_GRID, "MatMul", "Gemm", "Conv", "ConvTranspose"} and len(data) > 1:
        return data
    return []


def _data(node: Node) -> list[Value]:
    return [v for v in node.inputs if v is not None and constant(v) is None]


def _joins(model: Model) -> list[Node]:
    """The nodes whose parts must share one grid."""
    found = [n for n in nodes(model.graph) if n.op_type in _SHARES_GRID and not n.domain]
    return [node for node in found if len(_data(node)) > 1]


def _origin(value: Value) -> Value:
    """The value that a value is a rearrangement of."""
    maker = value.producer()
    while maker is not None and _moves(maker):
        source = maker.inputs[0]
        assert source is not None
        value, maker = source, source.producer()
    return value


def _moves(node: Node) -> bool:
    """Whether all results of a node are among its first input's values, or zero."""
    if node.domain or not node.inputs or constant(node.inputs[0]) is not None:
        return False
    if node.op_type == "Pad":
        mode = node.attributes.get("mode")
        fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        given = len(node.inputs) < 3 or fill is not None
        return mode is None or mode.as_string() != "constant" or (given and not np.any(fill))
    if node.op_type == "Resize":
        return node.attributes["mode"].as_string() == "nearest"
    return node.op_type in _MOVES


def _not_negative(value: Value) -> bool:
    """Whether a value has no negative elements, for what computes it."""
    maker = _origin(value).producer()
    if maker is None or maker.domain:
        return False
    if maker.op_type == "Clip":
        low = constant(maker.inputs[1]) if len(maker.inputs) > 1 else None
        return low is not None and bool(np.all(low >= 0))
    if maker.op_type in _AVERAGES and maker.inputs[0] is not None:
        return _not_negative(maker.inputs[0])
    return maker.op_type in _NOT_NEGATIVE


def _record(model: Model, values: list[Value], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What values the samples give, in float32 by onnxruntime; evenly thinned out."""
    import onnx
    import onnxruntime

    proto = onnx.load_from_string(to_bytes(model))
    outputs = {o.name for o in proto.graph.output}
    wanted = [str(v.name) for v in values if not v.is_graph_input()]
    for name in wanted:
        if name not in outputs:
            kind = onnx.TensorProto.FLOAT
            proto.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = _run(session, wanted, inputs, _fixed_batch(model)) if wanted else []
    except Exception as error:  # onnxruntime's errors have no common base
        raise reject(
            "HQC102", "onnxruntime cannot run the float model", notes=(str(error)[:300],)
        ) from error
    found = {**inputs, **dict(zip(wanted, results, strict=True))}
    return {name: _thinned(array) for name, array in found.items()}


def _fixed_batch(model: Model) -> int | None:
    """The batch size that a model insists on, if it does."""
    sizes = [v.shape[0] for v in model.graph.inputs if v.shape]
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def _run(
    session: Any, wanted: list[str], inputs: Mapping[str, Array], batch: int | None
) -> list[Array]:
    """The wanted values over all samples, in runs of `batch`, the last few samples left out."""
    count = len(next(iter(inputs.values())))
    size = min(batch or count, count)
    runs = [
        session.run(wanted, {name: array[i : i + size] for name, array in inputs.items()})
        for i in range(0, count - size + 1, size)
    ]
    return [np.concatenate(results) for results in zip(*runs, strict=True)]


def _thinned(array: Array) -> Array:
    flat = np.asarray(array, np.float64).ravel()
    return flat[:: max(1, flat.size // _MAX_VALUES)]


def _quantise_weight(model: Model, linear: Linear, bits: int, power_of_two: bool) -> None:
    value = linear.node.inputs[1]
    assert value is not None
    rows = np.moveaxis(np.asarray(linear.weight, np.float64), linear.out_axis, 0)
    rows = rows.reshape(rows.shape[0], -1)
    top = (1 << (bits - 1)) - 1
    scale = linear.along(_scales(rows, -top, top, power_of_two))
    quant = Quant(scale, np.zeros_like(scale, np.int64), bits, True, True, Rounding.ROUND)
    made = quant.build(model.graph, value, _fresh(model, f"{value.name}/Quant"))
    derive([made], linear.node, _BY)
    model.graph.insert_before(linear.node, made)
    linear.node.replace_input_with(1, made.outputs[0])


def _quantise_parts(
    model: Model, node: Node, seen: list[Array], bits: int, power_of_two: bool
) -> None:
    """One quantiser in front of each part of a sum or concatenation, all on the same grid."""
    parts = [i for i, v in enumerate(node.inputs) if v is not None and constant(v) is None]
    signed = not all(_not_negative(value) for value in _data(node))
    quant = _grid(np.concatenate(seen), bits, signed, power_of_two)
    for k, i in enumerate(parts):
        value = node.inputs[i]
        assert value is not None
        name = _fresh(model, f"{node.name or node.op_type}/Quant_{k}")
        made = quant.build(model.graph, value, name)
        derive([made], node, _BY)
        model.graph.insert_before(node, made)
        node.replace_input_with(i, made.outputs[0])


def _grid(seen: Array, bits: int, signed: bool, power_of_two: bool) -> Quant:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    scale = _scales(seen.reshape(1, -1), low, high, power_of_two).reshape(())
    return Quant(scale, np.zeros((), np.int64), bits, signed, False, Rounding.ROUND)


def _quantise_value(model: Model, value: Value, seen: Array, bits: int, power_of_two: bool) -> None:
    maker = value.producer()
    quant = _grid(seen, bits, not _not_negative(value), power_of_two)
    stem = (maker.name or str(value.name)).rpartition("/")[0] if maker is not None else value.name
    made = quant.build(model.graph, value, _fresh(model, f"{stem or value.name}/Quant"))
    result = made.outputs[0]
    if maker is not None:
        derive([made], maker, _BY)
        model.graph.insert_after(maker, made)
    else:
        set_source(made, f"input {value.name}")
        model.graph.insert_before(model.graph[0], made)
    redirect(value, made)
    for i, output in enumerate(model.graph.outputs):
        if output is value and maker is not None:
            model.graph.outputs[i] = result
            name = str(value.name)
            value.name, result.name = _fresh(model, f"{name}_float"), name


def _fresh(model: Model, name: str) -> str:
    taken = {str(v.name) for node in model.graph for v in node.outputs}
    found, n = name, 0
    while found in taken:
        n += 1
        found = f"{name}_{n}"
    return found


def _scales(rows: Array, low: int, high: int, power_of_two: bool) -> Array:
    """One float32 scale per row: the least squared error of the codes low..high over the row.

    Candidates are fractions of the scale that spans the row's range; a row of zeros gets 1.
    """
    span = np.maximum(rows.max(axis=1) / high, rows.min(axis=1) / low if low else 0.0)
    span = np.where(span > 0, span, 1.0)
    best, least = span.copy(), np.full(span.shape, np.inf)
    for candidate in _candidates(span, power_of_two):
        codes = np.clip(np.round(rows / candidate[:, None]), low, high)
        error = ((codes * candidate[:, None] - rows) ** 2).sum(axis=1)
        better = error < least
        best, least = np.where(better, candidate, best), np.where(better, error, least)
    return best.astype(np.float32)


def _candidates(span: Array, power_of_two: bool) -> list[Array]:
    if power_of_two:
        exponent = np.ceil(np.log2(span))
        return [np.exp2(exponent - down) for down in range(3)]
    return [span * fraction for fraction in _CANDIDATES[::-1]]
