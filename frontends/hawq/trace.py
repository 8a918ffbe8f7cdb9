"""The structure of a HAWQ network from the module whose forward calls it.

The forward is traced symbolically (`torch.fx`), its layers being leaves: those of HAWQ, known by
the names of their classes wherever they come from, and PyTorch's own. A module of HAWQ layers says
which scales each call passes on. A float module says the order of the layers only; the activations
of the state dict then follow each other in front of the layers that need integers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from hqc.diagnostics import HqcError, Location, reject
from hqc.frontends.hawq.fixed_point import Array
from hqc.frontends.hawq.network import Network, Scales, Step
from hqc.frontends.hawq.state import Hints, activation, layer, names
from hqc.frontends.hawq.structure import hints_of, input_shape_of, passes_weight_scale

_LINEAR = ("QuantLinear", "Linear")
_CONV = ("QuantConv2d", "QuantBnConv2d", "Conv2d")
_LAYERS = (*_LINEAR, *_CONV)
_RELU = ("ReLU",)
_SAME = ("QuantDropout", "Dropout", "Identity", "BatchNorm1d", "BatchNorm2d")
_POOLS = {
    **dict.fromkeys(("QuantMaxPool2d", "MaxPool2d"), "max_pool"),
    **dict.fromkeys(("QuantAveragePool2d", "AvgPool2d", "AdaptiveAvgPool2d"), "average_pool"),
}
_HEADS = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
_LEAVES = frozenset((*_LAYERS, *_RELU, *_SAME, *_POOLS, *_HEADS, "QuantAct", "Flatten"))
_BUFFERS = ("fc_scaling_factor", "conv_scaling_factor", "convbn_scaling_factor")


@dataclass(frozen=True)
class _Tensor:
    """The result of a step.

    Attributes:
        step: its index.
        act: the activation whose codes it carries, if it does.
        pending: the activation and the layer whose sums it carries, if it does.
    """

    step: int
    act: str = ""
    pending: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Scale:
    """The scale of an activation or of a layer's weights."""

    act: str = ""
    layer: str = ""


class _Tracer(fx.Tracer):  # type: ignore[misc]
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__name__ in _LEAVES


def trace(module: nn.Module, state: Mapping[str, Array], config: Mapping[str, Any]) -> Network:
    """The network that a module's forward describes, with the numbers of a state dict.

    Args:
        module: of HAWQ's layers, or the float module they were made from; layers have the names
            of the state dict, or come in its order.
        state: as `hqc.frontends.hawq.state.arrays` gives it.
        config: see `hqc.frontends.hawq.structure.hints_of`; `pass_weight_scale` says, for a float
            module, whether activations are told the scale of the weights in front.

    Raises:
        HqcError: HQC601, forward cannot be traced, or does not fit the state dict; HQC101, it
            calls an operation that has no translation; HQC602, one that has no exact form.
    """
    try:
        graph = _Tracer().trace(module.eval())
    except Exception as error:  # tracing runs the user's forward, which may raise anything
        raise reject(
            "HQC601",
            f"the forward of {type(module).__name__} cannot be traced",
            notes=(str(error).strip()[:300],),
            helps=("forward must not branch on values, nor loop over them",),
        ) from error
    walk = _Walk(module, state, config)
    for node in graph.nodes:
        walk.visit(node)
    return walk.network()


class _Walk:
    """Turns the nodes of a traced forward into steps, one by one."""

    def __init__(
        self, module: nn.Module, state: Mapping[str, Array], config: Mapping[str, Any]
    ) -> None:
        self._modules = dict(module.named_modules())
        self._state, self._config = state, config
        self._names = names(state)
        self._steps: list[Step] = []
        self._env: dict[fx.Node, Any] = {}
        kinds = [type(m).__name__ for m in self._modules.values()]
        self._is_float = "QuantAct" not in kinds
        self._acts = list(self._names.activations)
        self._layers = list(self._names.layers)
        self._hints = self._gather()
        self._input_shape = input_shape_of(config, module)
        self._last: Any = None

    def _gather(self) -> Hints:
        """Bits and modes from the configuration, then from HAWQ's own modules."""
        hints = hints_of(self._config, self._names)
        signed, bits = dict(hints.signed), dict(hints.activation_bits)
        weight, bias = dict(hints.weight_bits), dict(hints.bias_bits)
        epsilon = dict(hints.epsilon)
        for name, module in self._modules.items():
            for kind, widths in (("activation", bits), ("weight", weight), ("bias", bias)):
                if (found := getattr(module, f"{kind}_bit", None)) is not None:
                    widths[name] = int(found)
            if getattr(module, "activation_bit", None) is not None:
                signed[name] = getattr(module, "quant_mode", "symmetric") == "symmetric"
            if isinstance(norm := getattr(module, "bn", None), nn.Module):
                epsilon[name] = float(getattr(norm, "eps", 1e-5))
        return Hints(weight, bias, bits, signed, epsilon)

    # --- nodes ---

    def visit(self, node: fx.Node) -> None:
        """Add the step of one node."""
        self._env[node] = self._value_of(node)

    def _value_of(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            if self._steps:
                raise self._refuse("HQC601", node, "a forward with several inputs")
            return self._add(Step("input"))
        if node.op == "output":
            self._last = self._find(node.args[0])
            return None
        if node.op == "get_attr":
            return self._buffer(str(node.target), node)
        if node.op == "call_module":
            return self._module(str(node.target), node)
        return self._function(node)

    def _module(self, name: str, node: fx.Node) -> Any:
        module = self._modules[name]
        kind = type(module).__name__
        given = [self._find(a) for a in node.args]
        given_by_name = {key: self._find(a) for key, a in node.kwargs.items()}
        if kind == "QuantAct":
            return self._activation(name, given, given_by_name, node)
        x = _tensor(given[0])
        if kind in _LAYERS:
            return self._layer(name, kind, module, x, node)
        if kind in _RELU:
            return self._relu(x)
        if kind in _POOLS:
            found = self._pool(_POOLS[kind], name, module, x, node)
            return (found, _Scale(act=x.act)) if kind.startswith("Quant") else found
        if kind == "Flatten":
            return self._add(Step("flatten", (x.step,)), like=x)
        if kind in _HEADS:
            return self._add(Step(_HEADS[kind], (x.step,)))
        return given[0]  # dropout, identity, and batch norms that the layer in front has folded

    def _function(self, node: fx.Node) -> Any:
        given = [self._find(a) for a in node.args]
        name = node.target if isinstance(node.target, str) else node.target.__name__
        if node.target is operator.getitem:
            return given[0][given[1]]
        x = _tensor(given[0])
        if name in ("relu", "relu_"):
            return self._relu(x)
        if name in ("add", "iadd", "add_") and isinstance(given[1], _Tensor):
            return self._sum(x, given[1])
        if name in ("flatten", "view", "reshape"):
            return self._add(Step("flatten", (x.step,)), like=x)
        if name in ("softmax", "log_softmax"):
            return self._add(Step(name, (x.step,)))
        if name in ("size", "dropout", "contiguous"):
            return given[0]
        raise self._refuse("HQC101", node, f"{name} has no translation")

    def _activation(
        self, name: str, given: list[Any], by_name: Mapping[str, Any], node: fx.Node
    ) -> Any:
        """A call of `QuantAct`: x, or (x, scale); scales of x; identity and its scales."""
        keys = (
            *("x", "pre_act_scaling_factor", "pre_weight_scaling_factor"),
            *("identity", "identity_scaling_factor", "identity_weight_scaling_factor"),
        )
        call = {**dict(zip(keys, given, strict=False)), **by_name}
        x = call["x"]
        if isinstance(x, tuple):
            x, call["pre_act_scaling_factor"] = x[0], x[1]
        scales = self._scales(call.get(keys[1]), call.get(keys[2]), node)
        module = self._modules[name]
        if getattr(module, "full_precision_flag", False):
            raise self._refuse("HQC601", node, f"{name} is in full precision")
        if getattr(module, "fixed_point_quantization", False):
            scales = None
        identity = _tensor(call[keys[3]]) if call.get(keys[3]) is not None else None
        other = self._scales(call.get(keys[4]), call.get(keys[5]), node) if identity else None
        sources = (_tensor(x).step, *((identity.step,) if identity else ()))
        found = self._add(Step("act", sources, name, scales, other))
        return replace(found, act=name), _Scale(act=name)

    def _scales(self, pre: Any, weight: Any, node: fx.Node) -> Scales | None:
        if pre is None:
            return None
        if not isinstance(pre, _Scale) or not pre.act:
            raise self._refuse("HQC601", node, "the input's scale is not that of a QuantAct")
        if weight is not None and not (isinstance(weight, _Scale) and weight.layer):
            raise self._refuse("HQC601", node, "the weights' scale is not that of a layer")
        return Scales(pre.act, weight.layer if weight is not None else "")

    def _layer(self, name: str, kind: str, module: nn.Module, x: _Tensor, node: fx.Node) -> Any:
        x = self._on_grid(x, node)
        if self._is_float and name not in self._names.kinds:
            if not self._layers:
                raise self._refuse("HQC601", node, f"the state dict has no layer for {name}")
            name = self._layers[0]
        if name not in self._names.kinds:
            raise self._refuse("HQC601", node, f"the state dict has no layer {name}")
        if name in self._layers:
            self._layers.remove(name)
        op = "linear" if kind in _LINEAR else "conv"
        own = getattr(module, "conv", module)
        window = _window(own.kernel_size, own) if op == "conv" else {}
        if getattr(own, "padding_mode", "zeros") != "zeros":
            raise self._refuse("HQC602", node, f"padding_mode {own.padding_mode!r} of {name}")
        groups = int(getattr(own, "groups", 1))
        step = Step(op, (x.step,), name, Scales(x.act), None, window, groups)
        found = replace(self._add(step), pending=(x.act, name))
        quantised_conv = kind in ("QuantConv2d", "QuantBnConv2d")
        return (found, _Scale(layer=name)) if quantised_conv else found

    def _relu(self, x: _Tensor) -> _Tensor:
        return self._add(Step("relu", (x.step,)), like=x)

    def _sum(self, x: _Tensor, y: _Tensor) -> _Tensor:
        return self._add(Step("add", (x.step, y.step)), like=x if x.pending else y)

    def _pool(self, op: str, name: str, module: nn.Module, x: _Tensor, node: fx.Node) -> _Tensor:
        x = self._on_grid(x, node)
        own = getattr(module, "pool", getattr(module, "final_pool", module))
        usual = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}
        for option, value in usual.items():
            if getattr(own, option, value) != value:
                raise self._refuse("HQC602", node, f"{name} pools with another {option}")
        window = {}
        if not hasattr(own, "output_size"):
            window = _window(own.kernel_size, own)
        elif own.output_size not in (1, (1, 1)):
            raise self._refuse("HQC602", node, f"{name} adapts its windows to the image")
        return self._add(Step(op, (x.step,), name, Scales(x.act), None, window), like=x)

    def _buffer(self, target: str, node: fx.Node) -> _Scale:
        name, _, buffer = target.rpartition(".")
        if buffer == "act_scaling_factor":
            return _Scale(act=name)
        if buffer in _BUFFERS:
            return _Scale(layer=name)
        raise self._refuse("HQC601", node, f"forward reads {target}, which is no scale")

    def _on_grid(self, x: _Tensor, node: fx.Node) -> _Tensor:
        """The tensor as codes: for a float module, through the next activation."""
        if x.act:
            return x
        if not self._is_float:
            raise self._refuse("HQC601", node, "a layer reads a value that no QuantAct quantised")
        return self._next_activation(x, node)

    def _next_activation(self, x: _Tensor, node: fx.Node) -> _Tensor:
        if not self._acts:
            raise self._refuse("HQC601", node, "the state dict has too few activations")
        if any(s.op == "add" for s in self._steps):
            raise self._refuse(
                "HQC601",
                node,
                "a residual sum in a float module: which scales HAWQ was given is not known; "
                "give the class of HAWQ layers instead",
            )
        name = self._acts.pop(0)
        scales = None
        if x.pending is not None:
            told = passes_weight_scale(self._config)
            scales = Scales(x.pending[0], x.pending[1] if told else "")
        found = replace(self._add(Step("act", (x.step,), name, scales)), act=name)
        for made in [n for n, value in self._env.items() if value == x]:
            self._env[made] = found
        return found

    # --- results ---

    def network(self) -> Network:
        """All steps, with the activations and layers they name."""
        last = _tensor(self._last)
        if self._is_float and len(self._acts) == 1 and not last.act:
            last = self._next_activation(last, next(iter(self._env)))
        used = {s.name for s in self._steps}
        unused = [n for n in (*self._names.activations, *self._names.layers) if n not in used]
        if unused:
            raise reject(
                "HQC601",
                f"forward never calls {', '.join(unused)} of the state dict",
                helps=("give the module that the state dict belongs to",),
            )
        if last.step != len(self._steps) - 1:
            raise reject("HQC601", "forward computes something behind its output")
        steps = [s for s in self._steps if s.name]
        acts = {s.name: self._read_act(s.name) for s in steps if s.op == "act"}
        layers = {
            s.name: layer(
                self._state,
                s.name,
                self._names.kinds[s.name],
                acts[s.scales.pre].scale,
                self._hints,
            )
            for s in steps
            if s.op in ("linear", "conv") and s.scales is not None
        }
        return Network(tuple(self._steps), acts, layers, self._input_shape)

    def _read_act(self, name: str) -> Any:
        if name not in self._names.activations:
            raise reject("HQC601", f"the state dict has no activation {name}")
        return activation(self._state, name, self._hints)

    def _add(self, step: Step, like: _Tensor | None = None) -> _Tensor:
        self._steps.append(step)
        made = _Tensor(len(self._steps) - 1)
        return made if like is None else replace(like, step=made.step)

    def _find(self, arg: Any) -> Any:
        if isinstance(arg, fx.Node):
            return self._env[arg]
        if isinstance(arg, tuple | list):
            return tuple(self._find(a) for a in arg)
        return arg

    def _refuse(self, code: str, node: fx.Node, message: str) -> HqcError:
        trace = [x for x in (node.stack_trace or "").splitlines() if x.strip()]
        source = trace[-1].strip() if trace else ""
        return reject(code, message, where=Location(source=source, node=node.name))


def _tensor(found: Any) -> _Tensor:
    """The tensor of a value, the first of a pair with its scale."""
    first = found[0] if isinstance(found, tuple) else found
    if not isinstance(first, _Tensor):
        raise reject("HQC601", f"forward uses {first!r} where a tensor belongs")
    return first


def _window(kernel: Any, module: Any) -> dict[str, tuple[int, int]]:
    named: dict[str, Callable[[], Any]] = {
        "kernel": lambda: kernel,
        "stride": lambda: module.stride or kernel,
        "padding": lambda: module.padding,
        "dilation": lambda: getattr(module, "dilation", 1),
    }
    found = {}
    for name, read in named.items():
        value = read()
        if isinstance(value, str):
            raise reject("HQC601", f"padding {value!r} of a convolution")
        pair = value if isinstance(value, tuple | list) else (value, value)
        found[name] = (int(pair[0]), int(pair[1]))
    return found
