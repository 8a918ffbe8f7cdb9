"""Passes of other compilers as passes of hqc, so that the pass manager holds them to a contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnx_ir import Model
from onnx_ir.passes import PassBase

from hqc.ir import State
from hqc.pipeline.passes import Contract, Outcome, Pass

#: Changes a model, in place or not; the model it leaves, and whether anything changed.
Change = Callable[[Model], tuple[Model, bool]]


def foreign_pass(
    change: Change,
    *,
    name: str,
    summary: str,
    contract: Contract,
    needs: State | None = None,
    gives: State | None = None,
) -> type[Pass]:
    """A class of passes that run a function; register it with `Registry.with_pass`.

    Args:
        change: the function.
        name: how pipelines call the pass.
        summary: one line for `hqc passes`.
        contract: what it promises; the pass manager checks it after each run.
        needs, gives: states of the IR, as in `hqc.pipeline.passes.Pass`.
    """

    def rewrite(self: Pass, model: Model) -> Outcome:
        after, changed = change(model)
        if after is not model:
            model.graph = after.graph
        return Outcome(model, int(changed))

    namespace: dict[str, Any] = {
        "__doc__": summary,
        "__module__": __name__,
        "name": name,
        "contract": contract,
        "needs": needs,
        "gives": gives,
        "rewrite": rewrite,
    }
    title = "".join(part.capitalize() for part in name.split("-"))
    made: type[Pass] = dataclass(frozen=True)(type(title, (Pass,), namespace))
    return made


def from_onnx_ir(
    pass_: PassBase, contract: Contract | None = None, *, name: str = ""
) -> type[Pass]:
    """A pass of onnx_ir or onnxscript as one of hqc's.

    hqc's own passes need nothing to run the other way: they are onnx_ir in-place passes.

    Args:
        pass_: such as `onnx_ir.passes.common.CommonSubexpressionEliminationPass()`.
        contract: what it promises; exact by default.
        name: for pipelines; by default `ir-` and the name of its class.
    """

    def change(model: Model) -> tuple[Model, bool]:
        result = pass_(model)
        return result.model, bool(result.modified)

    title = type(pass_).__name__.removesuffix("Pass")
    return foreign_pass(
        change,
        name=name or f"ir-{kebab(title)}",
        summary=f"{type(pass_).__name__} of {type(pass_).__module__.partition('.')[0]}.",
        contract=contract or Contract(),
    )


def kebab(title: str) -> str:
    """`FoldConstants` as `fold-constants`."""
    text = "".join(f"-{c.lower()}" if c.isupper() else c for c in title)
    return text.strip("-").replace("_", "-")
