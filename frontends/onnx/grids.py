"""Exact QONNX forms of quantisers that round first and add the zero point afterwards.

ONNX, PyTorch and TFLite quantise as `saturate(round_half_even(x / s) + z)`, QONNX's `Quant` as
`round(clamp(x / s + z))`. Both give the value s * c with c = clamp(round_half_even(x / s), lo, hi),
but on ties where z is odd: there `Quant` rounds to even codes, hence to odd c. Such quantisers
become a `Quant` without zero point that rounds, on a wider range, and one on the same grid that
clamps: the second sees whole codes, so it never rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir import Graph, Node, Value

from hqc.diagnostics import reject
from hqc.ir import Array, add_constant
from hqc.ir.operators import MAX_BITS, Quant
from hqc.numerics.types import Rounding

#: float32 quotients of codes below this, scaled and unscaled, are within 1/4 of the code.
_SINGLE_CODES = 1 << 21


def saturating(scale: Array, lo: Array, hi: Array, shift: Array | int = 0) -> tuple[Quant, ...]:
    """Quantisers that make x -> scale * clamp(round_half_even(x / scale), lo, hi), one by one.

    Args:
        scale: positive, scalar or broadcastable against the tensor.
        lo, hi: integer arrays, scalar or of the shape of `scale`.
        shift: added before rounding and taken off behind: only whether it is odd matters.

    Raises:
        HqcError: HQC107, there is a single code, or codes take more than 32 bits.
    """
    spans = np.unique(hi - lo + 1)
    if spans[0] < 2:
        raise reject("HQC107", f"a quantiser with {int(spans[0])} codes")
    if len(spans) == 1:
        forms = list(_forms(scale, lo, int(spans[0])))
        direct = [form for form in forms if not np.any((form.zero_point - shift) % 2)]
        if direct:
            return (direct[0],)
        if forms:
            return (_wide(scale, lo, hi, shift), forms[0])
    first = _wide(scale, lo, hi, shift)
    top = first.code_limits[1]
    return (
        first,
        replace(first, zero_point=np.asarray(top - hi)),
        replace(first, signed=False, zero_point=np.asarray(-lo)),
    )


def _forms(scale: Array, lo: Array, span: int) -> Iterator[Quant]:
    """Every `Quant` with these limits, those without a zero point first."""
    found = []
    for narrow in (False, True):
        bits = (span + narrow).bit_length() - 1
        if span + narrow != 1 << bits or bits > MAX_BITS:
            continue
        for signed in (True, False):
            if bits == 1 and (signed or narrow):
                continue  # one signed bit is bipolar
            form = Quant(scale, np.zeros((), np.int64), bits, signed, narrow, Rounding.ROUND)
            zero = np.asarray(form.code_limits[0] - lo, np.int64)
            zero = zero.reshape(-1)[0] if np.all(zero == zero.flat[0]) else zero
            found.append(replace(form, zero_point=np.asarray(zero)))
    yield from sorted(found, key=lambda form: bool(np.any(form.zero_point)))


def _wide(scale: Array, lo: Array, hi: Array, shift: Array | int) -> Quant:
    """The narrowest signed `Quant` that holds all of lo..hi, with a zero point of 0 or 1."""
    zero = np.asarray(shift, np.int64) % 2
    bits = signed_bits(int(np.min(lo + zero)), int(np.max(hi + zero)))
    if bits > MAX_BITS:
        raise reject("HQC107", f"codes of {bits} bits: at most {MAX_BITS} are possible")
    return Quant(scale, zero, bits, True, False, Rounding.ROUND)


def signed_bits(lo: int, hi: int) -> int:
    """Width of the narrowest two's complement integer that holds lo and hi; at least 2."""
    return max(2, 1 + max(hi.bit_length(), (-lo - 1).bit_length() if lo < 0 else 0))


def chain(graph: Graph, x: Value, quants: tuple[Quant, ...], name: str) -> list[Node]:
    """Nodes that apply quantisers one after another; the last is called `name`."""
    made: list[Node] = []
    for i, quant in enumerate(quants):
        last = i == len(quants) - 1
        made.append(quant.build(graph, x, name if last else f"{name}_grid{i}"))
        x = made[-1].outputs[0]
    return made


def grid_data(codes: Array, scale: Array, bits: int = 2) -> tuple[Array, Quant]:
    """Floats, and a quantiser that makes exactly codes * scale of them.

    Args:
        codes: int64, zero points subtracted.
        scale: float32, broadcastable against codes.
        bits: width to declare, where it suffices.

    Returns:
        float32 data where that is enough to find the codes again, else float64.

    Raises:
        HqcError: HQC204, neither is; HQC107, more than 32 bits.
    """
    top = int(np.abs(codes).max(initial=0))
    needed = signed_bits(int(codes.min(initial=0)), int(codes.max(initial=0)))
    if needed > MAX_BITS:
        raise reject("HQC107", f"codes of {needed} bits: at most {MAX_BITS} are possible")
    zero = np.zeros((), np.int64)
    quant = Quant(scale, zero, max(bits, needed), True, False, Rounding.ROUND)
    for kind in (np.float32, np.float64) if top < _SINGLE_CODES else (np.float64,):
        with np.errstate(over="ignore", under="ignore"):
            data = codes.astype(kind) * scale.astype(kind)
            found = np.rint(data / scale.astype(kind))  # as `quantise_constant` computes it
        if np.all(np.isfinite(data)) and np.array_equal(found, codes):
            return data, quant
    raise reject("HQC204", f"codes up to {top} on scales down to {float(scale.min()):g}")


def on_grid(graph: Graph, codes: Array, scale: Array, name: str, bits: int = 2) -> Node:
    """A quantised constant called `name`, as `grid_data` makes it."""
    data, quant = grid_data(codes, scale, bits)
    made = quant.build(graph, add_constant(graph, f"{name}_values", data), name)
    made.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)  # whatever the data's type
    return made


def along(parameter: Array, axis: int, rank: int | None) -> Array | None:
    """A parameter with one element per slice of `axis`, shaped to broadcast; None if impossible."""
    if parameter.size == 1:
        return parameter.reshape(())
    if rank is None or parameter.ndim != 1 or not -rank <= axis < rank:
        return None
    return parameter.reshape(-1, *(1,) * (rank - 1 - axis % rank))


def same(a: Array, b: Array) -> bool:
    """Whether two scales or zero points are equal, shaped to broadcast or not."""
    return bool(np.array_equal(np.squeeze(a), np.squeeze(b)))
