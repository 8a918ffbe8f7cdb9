"""Compiled projects as callables on tensors, and a backend for `torch.compile`.

What runs is the emulation of the emitted C++ by default, or the exact executor; both give the
same float32 numbers. There are no gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hqc.artifact import Artifact
from hqc.diagnostics import HqcError, reject
from hqc.driver import compile as compile_model


@dataclass(frozen=True)
class Compiled:
    """A compiled model as a function of tensors.

    Attributes:
        artifact: the compiled directory.
        engine: "emulation" or "exact"; see `Artifact.run`.
    """

    artifact: Artifact
    engine: str = "emulation"

    def __call__(self, *tensors: Any) -> Any:
        """Outputs (float32, on the CPU) of inputs (N, ...); a tuple where there are several.

        Raises:
            HqcError: HQC005, the tensors do not fit the model's inputs; HQC401, one wants a
                gradient.
        """
        found = self.outputs(tensors)
        return found[0] if len(found) == 1 else found

    def outputs(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """The same, always as a tuple."""
        names = [boundary.name for boundary in self.artifact.inputs]
        if len(tensors) != len(names):
            raise reject("HQC005", f"{len(tensors)} tensors for {len(names)} inputs")
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            raise _no_gradient()
        arrays = {n: t.detach().cpu().numpy() for n, t in zip(names, tensors, strict=True)}
        results = self.artifact.run(arrays, self.engine)
        order = [str(v.name) for v in self.artifact.model.graph.outputs]
        return tuple(torch.from_numpy(results[name]) for name in order)


def compiled(
    module: Any,
    example_inputs: Any,
    backend: str = "vitis",
    output: str | Path | None = None,
    *,
    engine: str = "emulation",
    **options: Any,
) -> Compiled:
    """Compile a module with hqc, checked as always, and give back a function of tensors.

    Args:
        module: a `torch.nn.Module` in eval mode that hqc can load.
        example_inputs: a tensor or a tuple of them, batch first; the batch stays free.
        backend, output, options: of `hqc.compile`.
        engine: what the function runs; see `Compiled`.

    Raises:
        HqcError: what `hqc.compile` raises.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    artifact = compile_model(module, backend, output, example_inputs=tuple(inputs), **options)
    return Compiled(artifact, engine)


def hqc_backend(
    graph: Any, example_inputs: Sequence[Any], options: Mapping[str, Any] | None = None
) -> Any:
    """A backend for `torch.compile(net, backend="hqc")`; call the result under `no_grad`.

    Args:
        graph: the `torch.fx.GraphModule` that dynamo captured.
        example_inputs: its arguments; parameters and buffers become constants, and a later call
            with changed ones is refused.
        options: of `compiled`: backend, output, engine and those of `hqc.compile`.

    The project is made at the first call, which raises what `hqc.compile` raises.

    Raises:
        HqcError: HQC401, gradients are on, or a size is symbolic.
    """
    if not all(isinstance(x, torch.Tensor) for x in example_inputs):
        raise reject(
            "HQC401",
            "dynamo captured a symbolic size",
            helps=("torch.compile(..., dynamic=False)",),
        )
    if torch.is_grad_enabled() and any(x.requires_grad for x in example_inputs):
        raise _no_gradient()
    free = [i for i, x in enumerate(example_inputs) if not _is_constant(x)]
    held = {i: x for i, x in enumerate(example_inputs) if i not in free}
    if not free:
        raise reject(
            "HQC401",
            "dynamo captured a graph that reads no input: it split the module",
            notes=("a value that decides which way the code goes splits it",),
            helps=(
                "torch.compile(..., fullgraph=True) shows where",
                "hqc.integrations.torch.compiled takes the module whole",
            ),
        )
    module = _bound(graph, held)
    shapes = [(example_inputs[i].shape, example_inputs[i].dtype) for i in free]

    @cache
    def function() -> Compiled:  # at the first call: dynamo is still tracing now
        examples = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in shapes)
        given = {"output": _folder(options), **dict(options or {})}
        return compiled(module, examples, **given)

    versions = {i: x._version for i, x in held.items()}

    def call(*arguments: Any) -> tuple[Any, ...]:
        for i, x in held.items():
            if arguments[i] is not x or x._version != versions[i]:
                raise reject(
                    "HQC401",
                    "a parameter or buffer has changed since the graph was compiled",
                    helps=("torch.compiler.reset() compiles it again",),
                )
        return function().outputs([arguments[i] for i in free])

    return call


def _bound(graph: Any, held: Mapping[int, Any]) -> Any:
    """A captured graph with some of its arguments as buffers of its own."""
    places = [node for node in graph.graph.nodes if node.op == "placeholder"]
    nodes = torch.fx.Graph()
    made = {}
    for i in held:
        made[places[i]] = nodes.get_attr(f"held{i}")
    for node in graph.graph.nodes:
        if node not in made:
            made[node] = nodes.node_copy(node, made.__getitem__)
    root = torch.fx.GraphModule(graph, graph.graph)
    for i, x in held.items():
        root.register_buffer(f"held{i}", x.detach().clone())
    return torch.fx.GraphModule(root, nodes).eval()


def _is_constant(tensor: Any) -> bool:
    """Whether an argument is a parameter or a buffer: dynamo marks both as of a fixed address."""
    marked = getattr(tensor, "_dynamo_static_input_type", None)
    return isinstance(tensor, torch.nn.Parameter) or marked is not None


def _folder(options: Mapping[str, Any] | None) -> Path:
    name = (options or {}).get("backend", "vitis")
    return Path("build") / f"torch-compile-{name}"


def _no_gradient() -> HqcError:
    return reject(
        "HQC401",
        "the emulation has no gradient",
        helps=("call it under torch.no_grad() or torch.inference_mode()",),
    )
