"""Deliberate bugs for `tools/mutate.py`: where, what the source says, what it says instead.

Each is a mistake that somebody could make, small enough to look right. The old text must stand in
its file exactly once; `tests` is a part of the suite that should notice.
"""

from __future__ import annotations

from dataclasses import dataclass

_FUZZ = "tests/fuzzing/test_fuzz.py::test_a_fixed_sample_agrees_everywhere"
_ROWS = "tests/fuzzing/test_fuzz.py::test_every_operator_agrees_everywhere"
_REGRESSIONS = "tests/fuzzing/test_fuzz.py::test_graphs_that_went_wrong_once"
_NETWORKS = "tests/models/test_differential.py"


@dataclass(frozen=True)
class Mutation:
    """One bug.

    Attributes:
        name: what is wrong.
        file: from the root of the tree.
        old, new: text that stands in the file once, and what takes its place.
        tests: arguments for pytest, in the order in which they run.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = (_ROWS, _REGRESSIONS, _FUZZ)


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "ties round away from zero",
        "compiler/analysis/step_functions.py",
        "Rounding.ROUND: lambda k: (_HALF_BELOW, k % 2 == 0),",
        "Rounding.ROUND: lambda k: (_HALF_BELOW, k > 0),",
    ),
    Mutation(
        "zero point dropped from the grid",
        "compiler/analysis/step_functions.py",
        "tuple(-s * z for s, z in grids)",
        "tuple(0 * s * z for s, z in grids)",
    ),
    Mutation(
        "sign of the zero point",
        "compiler/analysis/step_functions.py",
        "return Bound((code + offset - zero) * scale, inclusive)",
        "return Bound((code + offset + zero) * scale, inclusive)",
    ),
    Mutation(
        "narrow range ignored",
        "compiler/ir/operators.py",
        "return (-hi if self.narrow else -hi - 1), hi",
        "return -hi - 1, hi",
    ),
    Mutation(
        "epsilon of batch norm dropped",
        "compiler/analysis/chain_steps.py",
        "factor = g / square_root(v + epsilon)",
        "factor = g / square_root(v)",
        ("tests/analysis/test_chain_steps.py", _ROWS, _FUZZ),  # a small one moves few codes
    ),
    Mutation(
        "sign of a subtracted bias",
        "compiler/analysis/chain_steps.py",
        '"Sub": lambda c: (_ONE, -c)',
        '"Sub": lambda c: (_ONE, c)',
    ),
    Mutation(
        "slope of LeakyRelu on the wrong side",
        "compiler/numerics/activations.py",
        "return Bound(bound.value / slope, bound.inclusive, bound.upward)",
        "return Bound(bound.value * slope, bound.inclusive, bound.upward)",
    ),
    Mutation(
        "stride and dilation swapped",
        "compiler/ir/windows.py",
        "*(n * step for n, step in zip(self.dilations, along, strict=True)),",
        "*(n * step for n, step in zip(self.strides, along, strict=True)),",
    ),
    Mutation(
        "padding at the wrong end",
        "compiler/ir/windows.py",
        'low, high = (small, large) if mode == "SAME_UPPER" else (large, small)',
        'low, high = (large, small) if mode == "SAME_UPPER" else (small, large)',
    ),
    Mutation(
        "lowered convolution loses its groups",
        "passes/lowering/linear.py",
        "plain = replace(window.closed(spatial), group=channels)",
        "plain = window.closed(spatial)",
    ),
    Mutation(
        "kernel of ConvTranspose not turned",
        "passes/lowering/linear.py",
        "turned = np.flip(shaped, axis=tuple(range(2, shaped.ndim)))",
        "turned = shaped",
    ),
    Mutation(
        "padded average divides by the kernel",
        "compiler/ir/windows.py",
        "return np.asarray((taps.index >= 0).sum(axis=1), np.int64)",
        "return np.full(len(taps.index), taps.index.shape[1], np.int64)",
    ),
    Mutation(
        "padding of a convolution left out of ranges",
        "compiler/analysis/ranges.py",
        "lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)",
        "lo, hi = lo, hi",
        ("tests/analysis/test_ranges.py", "tests/analysis/test_linear.py", _REGRESSIONS, _FUZZ),
    ),
    Mutation(
        "type of a range one bit too narrow",
        "compiler/numerics/types.py",
        "width = max(1, width + signed)",
        "width = max(1, width)",
        (
            "tests/numerics/test_types.py",
            "tests/analysis/test_ranges.py",
            "tests/passes/test_integer_passes.py",
        ),
    ),
    Mutation(
        "thresholds off by one",
        "compiler/analysis/dyadic_requantiser.py",
        "out[c] = np.clip(f.thresholds[c], max(first, int(ALWAYS)), min(last + 1, int(NEVER)))",
        "out[c] = np.clip(f.thresholds[c], max(first, int(ALWAYS)), min(last, int(NEVER)))",
        ("tests/analysis/test_dyadic_requantiser.py", _FUZZ, _NETWORKS),
    ),
    Mutation(
        "offset of a requantiser at another shift",
        "passes/lowering/requantisers.py",
        "offset = np.ldexp(d.offset.astype(np.float64), exponent - d.shift)",
        "offset = np.ldexp(d.offset.astype(np.float64), exponent - d.shift + 1)",
    ),
    Mutation(
        "subtraction lowered as a sum",
        "passes/lowering/merge.py",
        "second = second.then(Affine.of(-1))",
        "second = second.then(Affine.of(1))",
    ),
    Mutation(
        "falling channels keep their maximum",
        "passes/lowering/linear.py",
        "signs = tuple(Fraction(1 if s >= 0 else -1) for s in rising)",
        "signs = tuple(Fraction(1) for s in rising)",
    ),
    Mutation(
        "sum over axes lacks its count",
        "passes/lowering/canonical_forms.py",
        'b.number(size, "count")',
        'b.number(size - 1, "count")',
    ),
    Mutation(
        "alpha of Gemm ignored",
        "passes/lowering/canonical_forms.py",
        "if alpha != 1.0:",
        "if alpha != alpha:",
    ),
    Mutation(
        "split in the wrong order",
        "passes/lowering/canonical_forms.py",
        '(("start", start), ("end", start + size), ("axis", axis))',
        '(("start", 0), ("end", size), ("axis", axis))',
    ),
    Mutation(
        "pruned channel forgets its constant",
        "passes/prune_channels.py",
        "share = (values * (drop & still)) @ weights",
        "share = (values * (drop & ~still)) @ weights",
        ("tests/passes/test_integer_passes.py", _FUZZ, _NETWORKS),
    ),
    Mutation(
        "hoisted quantiser in front of other padding",
        "passes/lowering/move_elementwise.py",
        "(found.fill == 0.0 and _keeps_zero(node))",
        "_keeps_zero(node)",
    ),
    Mutation(
        "ties of HALF_UP in the fast executor",
        "compiler/execution/fast.py",
        "half = self._scalar(0.5 if rounding is Rounding.HALF_UP else -0.5, kind)",
        "half = self._scalar(0.5, kind)",
        ("tests/execution/test_reference.py", _FUZZ),
    ),
)
