"""The shape of each step of a HAWQ network, one sample at a time.

State dicts know channels and features, not the size of images. Where nobody says it, a square size
is taken if it is the only one that the linear layers behind the images allow.
"""

from __future__ import annotations

import math

from hqc.diagnostics import Location, reject
from hqc.frontends.hawq.network import Network, Step

Shape = tuple[int, ...]

#: Sizes of square images that are tried.
_LARGEST_SIDE = 1024


def shapes(network: Network) -> list[Shape]:
    """The shape of each step's result: channels, or channels, rows, columns.

    Raises:
        HqcError: HQC601, the shape given does not fit; HQC602, none was given and none follows.
    """
    if network.input_shape is not None:
        found = _walk(network, network.input_shape)
        if isinstance(found, str):
            raise reject("HQC601", f"input shape {list(network.input_shape)}: {found}")
        return found
    first = next(s for s in network.steps if s.op in ("linear", "conv"))
    weight = network.layers[first.name].weight
    if first.op == "linear":
        found = _walk(network, (weight.shape[1],))
        if isinstance(found, str):
            raise reject("HQC601", found)
        return found
    return _only_square(network, weight.shape[1] * first.groups, first)


def _only_square(network: Network, channels: int, first: Step) -> list[Shape]:
    sides = range(1, _LARGEST_SIDE + 1)
    tried = [found for n in sides if not isinstance(found := _walk(network, (channels, n, n)), str)]
    if len(tried) == 1:
        return tried[0]
    notes = ["a state dict with convolutions does not say how large images are"]
    if tried:
        some = ", ".join("x".join(map(str, t[0])) for t in tried[:4])
        notes.append(f"{some}{', ...' if len(tried) > 4 else ''} would fit")
    raise reject(
        "HQC602",
        "the size of the input is not known",
        where=Location(node=first.name),
        notes=tuple(notes),
        helps=(
            f"say it in the class: input_shape = ({channels}, rows, columns)",
            f'or in the "config" of the checkpoint: "input_shape": [{channels}, rows, columns]',
        ),
    )


def _walk(network: Network, given: Shape) -> list[Shape] | str:
    """Shapes of all steps for an input shape, or what does not fit."""
    found: list[Shape] = []
    for step in network.steps:
        sources = [found[i] for i in step.sources]
        shape = _step(network, step, sources, given)
        if isinstance(shape, str):
            return f"{step.name or step.op} {shape}"
        found.append(shape)
    return found


def _step(network: Network, step: Step, sources: list[Shape], given: Shape) -> Shape | str:
    if step.op == "input":
        return given
    x = sources[0]
    if step.op == "linear":
        outputs, inputs = network.layers[step.name].weight.shape
        return (outputs,) if x == (inputs,) else f"takes ({inputs},) values and reads {x}"
    if step.op == "flatten":
        return (math.prod(x),)
    if step.op == "conv":
        weight = network.layers[step.name].weight
        channels = weight.shape[1] * step.groups
        if len(x) != 3 or x[0] != channels:
            return f"takes {channels} channels of images and reads {x}"
        return _windowed(step, weight.shape[0], x)
    if step.op in ("max_pool", "average_pool"):
        return _windowed(step, x[0], x) if len(x) == 3 else f"takes images and reads {x}"
    if len(sources) > 1 and sources[1] != x:
        return f"joins {x} and {sources[1]}"
    return x


def _windowed(step: Step, channels: int, x: Shape) -> Shape | str:
    if not step.window:
        return (channels, 1, 1)
    sides = tuple(
        (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for n, kernel, stride, pad, dilation in zip(
            x[1:],
            *(step.window[k] for k in ("kernel", "stride", "padding", "dilation")),
            strict=True,
        )
    )
    return (channels, *sides) if min(sides) > 0 else f"has a window larger than {x}"
