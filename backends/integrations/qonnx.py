"""hqc's passes as qonnx transformations, and qonnx's transformations as passes of hqc."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir
from onnx_ir import Model
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.base import Transformation

from hqc import ir
from hqc.analysis.partition import computed_nodes
from hqc.equivalence.qonnx_oracle import with_batch
from hqc.integrations.foreign import foreign_pass, kebab
from hqc.ir import State, is_marked
from hqc.ir.structural_equality import difference
from hqc.pipeline.passes import Contract, Pass

#: The symbol of the batch axis; the size it has while qonnx, which wants a number, transforms.
_BATCH, _SIZE = "N", 1


def as_qonnx(passes: Pass | str) -> Transformation:
    """A pass, or a whole pipeline, for `ModelWrapper.transform`.

    A model that hqc has not seen is imported first. It is applied once, and the batch axis keeps
    its size; types and ranges are in the metadata of the values.

    Args:
        passes: a pass, which just runs, or a pipeline string, whose passes are held to their
            contracts.
    """
    return _Transformation(passes)


def from_qonnx(
    transformation: Transformation | type[Transformation],
    contract: Contract | None = None,
    *,
    name: str = "",
    needs: State | None = None,
) -> type[Pass]:
    """A transformation of qonnx, or of FINN, as a class of passes for `Registry.with_pass`.

    Args:
        transformation: an instance, or a class that needs no arguments.
        contract: what it promises; exact by default. The pass manager checks it.
        name: for pipelines; by default `qonnx-` and the name of its class.
        needs: the state of the IR that it takes, None for any.
    """
    class_ = transformation if isinstance(transformation, type) else type(transformation)

    def change(model: Model) -> tuple[Model, bool]:
        made = transformation() if isinstance(transformation, type) else transformation
        wrapper = ModelWrapper(with_batch(_proto(model), _SIZE)).transform(made)
        after = _model(wrapper.model)
        _free_batch(after)
        return after, difference(model, after) is not None

    return foreign_pass(
        change,
        name=name or f"qonnx-{kebab(class_.__name__)}",
        summary=f"{class_.__name__} of {class_.__module__.partition('.')[0]}.",
        contract=contract or Contract(),
        needs=needs,
    )


class _Transformation(Transformation):  # type: ignore[misc]
    """See `as_qonnx`."""

    def __init__(self, passes: Pass | str):
        super().__init__()
        self._passes = passes

    def apply(self, model: Any) -> tuple[Any, bool]:
        """Run once; the second result asks qonnx for no further round."""
        from hqc.driver import run_passes
        from hqc.frontends.qonnx import normalise_import

        own = _model(model.model)
        dims = next(v for v in own.graph.inputs if not v.is_initializer()).shape
        if not is_marked(own):
            own = normalise_import(own).model
        if isinstance(self._passes, str):
            own = run_passes(own, self._passes)
        else:
            own = self._passes(own).model
        proto = _proto(own)
        batch = dims[0] if dims is not None else None
        return ModelWrapper(with_batch(proto, batch) if isinstance(batch, int) else proto), False


def _proto(model: Model) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(ir.to_bytes(model))


def _model(proto: onnx.ModelProto) -> Model:
    return ir.from_bytes(proto.SerializeToString(), "the model")


def _free_batch(model: Model) -> None:
    """The batch axis of inputs, and of all that depends on them, as a symbol again."""
    values = [v for v in model.graph.inputs if not v.is_initializer()]
    values += [v for node in computed_nodes(model) for v in node.outputs]
    for value in values:
        if value.shape is not None and len(value.shape) and value.shape[0] == _SIZE:
            value.shape = onnx_ir.Shape((_BATCH, *value.shape[1:]))
