"""Transistors and wires of a cell's layout, as KLayout extracts them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWER, GROUND = "VPWR", "VGND"
#: Layers of the layouts, by the numbers of the process' documentation.
_LAYERS = {
    "nwell": (64, 20),
    "diff": (65, 20),
    "poly": (66, 20),
    "licon": (66, 44),
    "li1": (67, 20),
    "mcon": (67, 44),
    "met1": (68, 20),
}
_LABELS = {"li1": (67, 5), "met1": (68, 5)}


@dataclass(frozen=True)
class Transistor:
    """A transistor of a cell; lengths in um, areas in um2.

    Attributes:
        model: such as "pfet_01v8_hvt"; from the layout alone, "n" or "p".
        drain, gate, source: nets.
        width, length: of the gate.
        areas, edges: areas and perimeters of drain and source.
        stress: from the gate to both ends of the active area, which presses on the channel.
    """

    model: str
    drain: str
    gate: str
    source: str
    width: float
    length: float
    areas: tuple[float, float]
    edges: tuple[float, float]
    stress: tuple[float, float]


def extract(
    path: Path, top: str, farads: Mapping[str, tuple[float, float]]
) -> tuple[list[Transistor], tuple[tuple[str, float], ...]]:
    """The transistors, and the capacitance of each net but the supply's, in femtofarads.

    Args:
        path: of the GDS file.
        top: name of the cell in it.
        farads: of poly, li1 and met1: femtofarads per um2 and per um of edge.
    """
    from klayout import db

    layout = db.Layout()
    layout.read(str(path))
    tool = db.LayoutToNetlist(db.RecursiveShapeIterator(layout, layout.cell(top), []))
    layers = {
        name: tool.make_layer(layout.layer(*numbers), name) for name, numbers in _LAYERS.items()
    }
    _devices(tool, layers)
    for name, numbers in _LABELS.items():
        tool.connect(layers[name], tool.make_text_layer(layout.layer(*numbers), f"{name}_label"))
    tool.extract_netlist()
    circuit = tool.netlist().circuit_by_name(top)
    names = {net.cluster_id: net.expanded_name().replace("$", "net") for net in circuit.each_net()}
    active = layers["diff"].dup().merged()
    found = [_transistor(device, names, active, layout.dbu) for device in circuit.each_device()]
    wires = {name: layers[name] for name in farads if name != "poly"} | {"poly": layers["field"]}
    loads = _loads(
        tool, circuit, names, [(wires[name], farads[name]) for name in wires], layout.dbu
    )
    return found, tuple(sorted(loads))


def _devices(tool: Any, layers: dict[str, Any]) -> None:
    """Extract transistors, and connect layers; adds polysilicon over field oxide as `field`."""
    from klayout import db

    well, active, poly = layers["nwell"], layers["diff"], layers["poly"]
    gates, ends = active & poly, active - poly
    layers["field"] = poly - active
    tool.register(layers["field"], "field")
    bulk = tool.make_layer("bulk")
    regions = {"n": (gates - well, ends - well, bulk), "p": (gates & well, ends & well, well)}
    for kind, (gate, end, body) in regions.items():
        tool.register(gate, f"gate_{kind}")
        tool.register(end, f"end_{kind}")
        tool.extract_devices(
            db.DeviceExtractorMOS4Transistor(kind),
            {"SD": end, "G": gate, "W": body, "tG": poly, "tS": end, "tD": end, "tW": body},
        )
        tool.connect(end)
        tool.connect(end, layers["licon"])
    tool.connect(bulk)
    for name, layer in layers.items():
        if name != "diff":
            tool.connect(layer)
    pairs = (
        ("poly", "licon"),
        ("poly", "field"),
        ("licon", "li1"),
        ("li1", "mcon"),
        ("mcon", "met1"),
    )
    for lower, upper in pairs:
        tool.connect(layers[lower], layers[upper])


def _loads(
    tool: Any, circuit: Any, names: Mapping[int, str], wires: list[Any], dbu: float
) -> Iterator[tuple[str, float]]:
    for net in circuit.each_net():
        shapes = ((tool.shapes_of_net(net, layer), each) for layer, each in wires)
        load = math.fsum(
            per_area * s.area() * dbu**2 + per_edge * s.perimeter() * dbu
            for s, (per_area, per_edge) in shapes
        )
        if load and names[net.cluster_id] not in (POWER, GROUND):
            yield names[net.cluster_id], round(load, 5)


def _transistor(device: Any, names: Mapping[int, str], active: Any, dbu: float) -> Transistor:
    values = {
        p.name: round(device.parameter(p.name), 5)
        for p in device.device_class().parameter_definitions()
    }
    drain, gate, source = (names[device.net_for_terminal(t).cluster_id] for t in "DGS")
    return Transistor(
        str(device.device_class().name),
        drain,
        gate,
        source,
        round(values["W"], 4),
        round(values["L"], 4),
        (values["AD"], values["AS"]),
        (values["PD"], values["PS"]),
        _stress(device, active, dbu),
    )


def _stress(device: Any, active: Any, dbu: float) -> tuple[float, float]:
    """How far active area reaches to the left and to the right of a gate, over its width."""
    from klayout import db

    where, length = device.trans.disp, device.parameter("L")
    width = device.parameter("W")
    strip = db.DBox(-1e3, where.y - width / 2, 1e3, where.y + width / 2).to_itype(dbu)
    gate = db.DBox(length, width).moved(where.x, where.y).to_itype(dbu)
    box = (active & db.Region(strip)).merged().interacting(db.Region(gate)).bbox()
    return (
        round((gate.left - box.left) * dbu, 4),
        round((box.right - gate.right) * dbu, 4),
    )
