"""The order of a HAWQ network's layers, where only its state dict is there: a plain MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hqc.diagnostics import reject
from hqc.frontends.hawq.fixed_point import Array
from hqc.frontends.hawq.network import Activation, Layer, Network, Scales, Step
from hqc.frontends.hawq.state import Hints, Names, activation, layer, names, tensor

MODEL_HELP = "name the class whose forward calls the layers: --hawq-model FILE.py:NAME"


def hints_of(config: Mapping[str, Any], found: Names) -> Hints:
    """Bits and modes that a training configuration states; lists go by position.

    Keys: `weight_bit`, `bias_bit` and `act_bit`, a number or one per layer; `input_bit`;
    `quant_mode`, "symmetric" or "asymmetric", of the activations behind the first.

    Raises:
        HqcError: HQC601, a list is of another length, or a value makes no sense.
    """
    inner = found.activations[1:]
    acts = _spread(config, "act_bit", inner)
    if config.get("input_bit") is not None:
        acts[found.activations[0]] = _bits(config["input_bit"], "input_bit")
    mode = config.get("quant_mode")
    if mode not in (None, "symmetric", "asymmetric"):
        raise reject("HQC601", f"quant_mode {mode!r} is neither symmetric nor asymmetric")
    return Hints(
        weight_bits=_spread(config, "weight_bit", found.layers),
        bias_bits=_spread(config, "bias_bit", found.layers),
        activation_bits=acts,
        signed={} if mode is None else dict.fromkeys(inner, mode == "symmetric"),
    )


def passes_weight_scale(config: Mapping[str, Any]) -> bool:
    """Whether activations are told the scale of the weights in front of them.

    Raises:
        HqcError: HQC601, the configuration does not say; nor does any state dict.
    """
    found = config.get("pass_weight_scale")
    if not isinstance(found, bool):
        raise reject(
            "HQC601",
            "a state dict does not say whether activations are told the scale of the weights",
            notes=("where they are not, HAWQ rounds twice, and other codes come out",),
            helps=(MODEL_HELP, 'or put "pass_weight_scale": true or false into the "config"'),
        )
    return found


def input_shape_of(config: Mapping[str, Any], module: Any = None) -> tuple[int, ...] | None:
    """Shape of one sample: "input_shape" of the configuration, else of the module, else None.

    Raises:
        HqcError: HQC601, it is no list of positive numbers.
    """
    given = config.get("input_shape", getattr(module, "input_shape", None))
    if given is None:
        return None
    sizes = tuple(given) if isinstance(given, list | tuple) else ()
    if not sizes or any(not isinstance(n, int) or n < 1 for n in sizes):
        raise reject("HQC601", f"input_shape {given!r} is no list of sizes, such as [1, 28, 28]")
    return sizes


def _spread(config: Mapping[str, Any], key: str, parts: Sequence[str]) -> dict[str, int]:
    given = config.get(key)
    if given is None:
        return {}
    each = list(given) if isinstance(given, list | tuple) else [given] * len(parts)
    if len(each) != len(parts):
        raise reject("HQC601", f"{key} has {len(each)} entries for {', '.join(parts)}")
    return {part: _bits(bits, key) for part, bits in zip(parts, each, strict=True)}


def _bits(given: Any, key: str) -> int:
    if not isinstance(given, int) or not 2 <= given <= 32:
        raise reject("HQC107", f"{key} {given!r} is not a bit width from 2 to 32")
    return given


def sequential(state: Mapping[str, Array], config: Mapping[str, Any]) -> Network:
    """A plain MLP: input, then layer, rectifier and activation in the order of the state dict.

    Activations that saw negative values have no rectifier in front. One activation more than
    layers quantises the output.

    Raises:
        HqcError: HQC601, the parts do not make up a plain MLP.
    """
    found = names(state)
    hints = hints_of(config, found)
    _check_plain(state, found)
    acts = [activation(state, name, hints) for name in found.activations]
    layers: list[Layer] = []
    steps = [Step("input"), Step("act", (0,), acts[0].name)]
    passes_scale = passes_weight_scale(config) if len(acts) > 1 else False
    for i, name in enumerate(found.layers):
        before = acts[i].name
        layers.append(layer(state, name, "linear", acts[i].scale, hints))
        steps.append(Step("linear", (len(steps) - 1,), name, Scales(before)))
        if i + 1 < len(acts):
            if float(tensor(state, f"{acts[i + 1].name}.x_min").min()) >= 0:
                steps.append(Step("relu", (len(steps) - 1,)))
            scales = Scales(before, name if passes_scale else "")
            steps.append(Step("act", (len(steps) - 1,), acts[i + 1].name, scales))
    return _network(steps, acts, layers)


def _network(steps: list[Step], acts: list[Activation], layers: list[Layer]) -> Network:
    return Network(tuple(steps), {a.name: a for a in acts}, {x.name: x for x in layers})


def _check_plain(state: Mapping[str, Array], found: Names) -> None:
    convolutions = [name for name, kind in found.kinds.items() if kind != "linear"]
    if convolutions:
        raise _not_plain(f"{convolutions[0]} is a convolution")
    if len(found.activations) - len(found.layers) not in (0, 1):
        raise _not_plain(f"{len(found.activations)} activations, {len(found.layers)} layers")
    for before, after in zip(found.layers, found.layers[1:], strict=False):
        made, wanted = (tensor(state, f"{name}.weight").shape for name in (before, after))
        if made[0] != wanted[1]:
            raise _not_plain(f"{before} gives {made[0]} values, {after} takes {wanted[1]}")


def _not_plain(why: str) -> Exception:
    return reject(
        "HQC601",
        "the layers of the state dict are no plain MLP in their order",
        notes=(why,),
        helps=(MODEL_HELP,),
    )
