"""Read the core of an integer graph as a list of hardware layers, or say why it is not one.

Adjacent nodes that one hardware layer does at once are joined: MatMul or Conv and its bias, the
factors and offset of a requantisation, and a quantiser with the single layer whose result it
takes. Which layer a node becomes stands in `hqc.backends.layers.lowering`.
"""

from __future__ import annotations

from onnx_ir import Model, Node

from hqc.analysis.chain_steps import is_pass_through
from hqc.analysis.partition import Partition
from hqc.analysis.rearrangements import is_rearrangement
from hqc.backends.layers.constants import Illegal, c_name
from hqc.backends.layers.layers import Activation, Input, Layer, Network
from hqc.backends.layers.layout import hardware_shape, simplify
from hqc.backends.layers.lowering import OPERATORS, lower
from hqc.backends.layers.walk import Skip, Walk, changes_nothing
from hqc.diagnostics import Diagnostic, HqcError, Location
from hqc.ir import location_of

__all__ = ["OPERATORS", "Reader", "read_network"]


def read_network(model: Model, partition: Partition) -> Network:
    """The layers of a partition's core.

    Raises:
        HqcError: HQC401 with one diagnostic per node that no layer does.
    """
    reader = Reader(partition)
    network = reader.read()
    if reader.found:
        raise HqcError(reader.found)
    return network


class Reader(Walk):
    """One pass over the core; `found` collects what is wrong with it."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        self.found: list[Diagnostic] = []

    def read(self) -> Network:
        """Layers of all nodes, inputs first; incomplete if something was found."""
        inputs = tuple(self._input(i) for i in range(len(self.partition.inputs)))
        for node in self.partition.core:
            if id(node) in self.done:
                continue
            try:
                self._node(node)
            except Illegal as reason:
                self.found.append(reason.diagnostic(location_of(node)))
                self._poison(node)
            except HqcError as error:
                self.found.extend(error.diagnostics)
                self._poison(node)
            except Skip:
                self._poison(node)
        return self._finish_ports(inputs)

    def _poison(self, node: Node) -> None:
        """Keep going after a node that has no layer, without complaining about its users."""
        for output in node.outputs:
            self.layer_of[str(output.name)] = ""

    # --- ports ------------------------------------------------------------------------------

    def _input(self, index: int) -> str:
        port = self.partition.inputs[index]
        name = f"in{index}_{c_name(port.name)}"
        shape = hardware_shape(port.shape)
        self.layers[name] = Input(name, (), shape, port.type, Location(node=port.name))
        self.layer_of[port.name] = name
        self.ranges[name] = port.type.limits
        return name

    def _finish_ports(self, inputs: tuple[str, ...]) -> Network:
        wanted = [self._port_layer(port.name) for port in self.partition.outputs]
        if self.found or not all(wanted):
            return Network(tuple(self.layers.values()), inputs, tuple(wanted))
        layers, alias = simplify(list(self.layers.values()), wanted)
        outputs: list[str] = []
        for index, name in enumerate(wanted):
            copy = self._copy(index, alias[name], layers, outputs)
            if copy is not None:
                layers.append(copy)
            outputs.append(alias[name] if copy is None else copy.name)
        return Network(tuple(layers), inputs, tuple(outputs))

    def _port_layer(self, name: str) -> str:
        if (found := self.layer_of.get(name)) is None:
            message = f"output port {name} is not computed by the hardware part"
            self.found.append(Illegal(message).diagnostic(Location(node=name)))
        return found or ""

    def _copy(self, index: int, name: str, layers: list[Layer], before: list[str]) -> Layer | None:
        """A copy for an output port, unless the layer that computes it can be the port.

        An output array that the design also reads would get a second, input direction in the
        synthesised interface, so values that have other uses are copied.
        """
        port = self.partition.outputs[index]
        source = next(layer for layer in layers if layer.name == name)
        shared = name in before or any(name in layer.sources for layer in layers)
        same_step = source.result.fraction == port.type.fraction
        if same_step and not shared and not isinstance(source, Input):
            return None
        result = source.result.exact() if same_step else port.type.exact()
        copied = f"out{index}_{c_name(port.name)}"
        return Activation(copied, (name,), source.shape, result, source.where, function="cast")

    # --- walking ----------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        if not is_pass_through(node) or is_rearrangement(node):
            lower(self, node)
            return
        source = self.source(node.inputs[0])
        if not changes_nothing(node):
            raise Illegal(f"this {node.op_type} changes values or mixes samples")
        self.layer_of[str(node.outputs[0].name)] = source.name
