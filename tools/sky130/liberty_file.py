"""Liberty files (NLDM) of characterised cells, for Yosys, abc and OpenSTA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cells import Cell
from decks import LOWER, UPPER, Conditions
from flipflop import Constraint
from timing import Grid, Table, Timing


@dataclass(frozen=True)
class Characterised:
    """A cell and what was measured of it.

    Attributes:
        cell: which.
        area: in um2.
        capacitances: of each input by data's edge ("rise", "fall"), in picofarads.
        timings: of its arcs.
        constraints: of a flip-flop's data.
    """

    cell: Cell
    area: float
    capacitances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    timings: Sequence[Timing] = ()
    constraints: Sequence[Constraint] = ()


def write_library(
    name: str,
    cells: Iterable[Characterised],
    conditions: Conditions,
    grid: Grid,
    remarks: Sequence[str],
) -> str:
    """A Liberty file.

    Args:
        name: of the library.
        cells: in the order of the file.
        conditions: that they were characterised in.
        grid: of their tables.
        remarks: lines of the comment at its head.
    """
    body = [*_units(conditions), *_templates(grid)]
    for cell in cells:
        body += _cell(cell, grid)
    head = ["/*", *(f" * {remark}".rstrip() for remark in remarks), " */"]
    return "\n".join([*head, *_group(f"library ({name})", body), ""])


def _group(head: str, lines: Iterable[str]) -> list[str]:
    return [f"{head} {{", *(f"  {line}" for line in lines), "}"]


def _units(conditions: Conditions) -> list[str]:
    low, high = 100 * LOWER, 100 * UPPER
    thresholds = [
        line
        for edge in ("rise", "fall")
        for line in (
            f"input_threshold_pct_{edge} : 50;",
            f"output_threshold_pct_{edge} : 50;",
            f"slew_lower_threshold_pct_{edge} : {low:g};",
            f"slew_upper_threshold_pct_{edge} : {high:g};",
        )
    ]
    operating = [
        "process : 1;",
        f"temperature : {conditions.temperature:g};",
        f"voltage : {conditions.voltage:g};",
    ]
    return [
        "technology (cmos);",
        "delay_model : table_lookup;",
        'time_unit : "1ns";',
        'voltage_unit : "1V";',
        'current_unit : "1mA";',
        'pulling_resistance_unit : "1kohm";',
        'leakage_power_unit : "1nW";',
        "capacitive_load_unit (1, pf);",
        "nom_process : 1;",
        f"nom_temperature : {conditions.temperature:g};",
        f"nom_voltage : {conditions.voltage:g};",
        *_group(f"operating_conditions ({conditions.name})", operating),
        f"default_operating_conditions : {conditions.name};",
        *thresholds,
        "slew_derate_from_library : 1;",
        "default_fanout_load : 1;",
        "default_input_pin_cap : 0;",
        "default_inout_pin_cap : 0;",
        "default_output_pin_cap : 0;",
    ]


def _templates(grid: Grid) -> list[str]:
    delay = [
        "variable_1 : input_net_transition;",
        "variable_2 : total_output_net_capacitance;",
        f"index_1 ({_values(grid.slews)});",
        f"index_2 ({_values(range(1, len(grid.shares) + 1))});",
    ]
    constraint = [
        "variable_1 : related_pin_transition;",
        "variable_2 : constrained_pin_transition;",
        f"index_1 ({_values(grid.setup_slews)});",
        f"index_2 ({_values(grid.setup_slews)});",
    ]
    return [
        *_group("lu_table_template (delay)", delay),
        *_group("lu_table_template (constraint)", constraint),
    ]


def _values(numbers: Iterable[float]) -> str:
    return '"' + ", ".join(f"{number:.7g}" for number in numbers) + '"'


def _cell(found: Characterised, grid: Grid) -> list[str]:
    cell = found.cell
    lines = [f"area : {found.area:g};"]
    if cell.flip_flop:
        lines += _group("ff (IQ, IQN)", ['clocked_on : "CLK";', 'next_state : "D";'])
    for pin in cell.inputs:
        lines += _group(f"pin ({pin})", _input(found, pin, grid))
    for pin, function in cell.outputs:
        lines += _group(f"pin ({pin})", _output(found, pin, function, grid))
    return _group(f"cell ({cell.full_name})", lines)


def _input(found: Characterised, pin: str, grid: Grid) -> list[str]:
    farads = found.capacitances[pin]
    lines = [
        "direction : input;",
        f"capacitance : {(farads['rise'] + farads['fall']) / 2:.7g};",
        f"rise_capacitance : {farads['rise']:.7g};",
        f"fall_capacitance : {farads['fall']:.7g};",
        f"max_transition : {grid.slews[-1]:g};",
    ]
    if found.cell.flip_flop and pin == "CLK":
        lines.append("clock : true;")
    if found.cell.flip_flop and pin == "D":
        for constraint in found.constraints:
            lines += _group("timing ()", _constraint(constraint, grid))
    return lines


def _constraint(constraint: Constraint, grid: Grid) -> list[str]:
    lines = ['related_pin : "CLK";', f"timing_type : {constraint.kind}_rising;"]
    for edge, table in constraint.tables.items():
        axes = (grid.setup_slews, grid.setup_slews)
        lines += _group(f"{edge}_constraint (constraint)", _table(table, *axes))
    return lines


def _output(found: Characterised, pin: str, function: str, grid: Grid) -> list[str]:
    lines = ["direction : output;", f'function : "{function}";']
    if found.cell.is_tie:
        return lines
    lines.append(f"max_capacitance : {found.cell.load:g};")
    for timing in found.timings:
        if timing.target == pin:
            lines += _group("timing ()", _timing(timing, found.cell, grid))
    return lines


def _timing(timing: Timing, cell: Cell, grid: Grid) -> list[str]:
    lines = [
        f'related_pin : "{timing.source}";',
        f"timing_type : {timing.kind};",
        f"timing_sense : {timing.sense};",
    ]
    for name, table in timing.tables.items():
        lines += _group(f"{name} (delay)", _table(table, grid.slews, grid.loads(cell)))
    return lines


def _table(table: Table, rows: Sequence[float], columns: Sequence[float]) -> list[str]:
    values = ", ".join(_values(row) for row in table)
    return [
        f"index_1 ({_values(rows)});",
        f"index_2 ({_values(columns)});",
        f"values ({values});",
    ]
