"""Coded, located messages: what is wrong, where in the user's model, and what to do.

Every refusal of hqc is a `Diagnostic` carried by an `HqcError`; the command line prints it on one
screen and turns its `Exit` into the exit status. The codes live in one table, `CODES`; what each
means at length is in `explanations.toml`, which `hqc explain` prints.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

CODES: dict[str, str] = {
    # 0xx: the command line and files
    "HQC001": "bad usage of an option or argument",
    "HQC002": "the model file is missing, corrupt, truncated or of an unknown format",
    "HQC003": "the file holds pickled code, which is never executed",
    "HQC004": "the output is not overwritten: hqc did not make it",
    "HQC005": "samples do not fit the model's inputs",
    "HQC006": "not a directory made by hqc, or a damaged one",
    "HQC007": "a file or directory cannot be written",
    "HQC008": "a file is of a format version that this hqc does not read",
    # 1xx: what the model says
    "HQC101": "unknown operator",
    "HQC102": "operator known, but not in this form",
    "HQC103": "the model is not quantised",
    "HQC104": "dynamic shape other than the batch",
    "HQC105": "a constant holds NaN or infinity",
    "HQC106": "a scale is zero, negative or not finite",
    "HQC107": "bit width is fractional or impossible",
    "HQC108": "quantiser parameters must be constants",
    "HQC109": "graph structure is not valid",
    # 2xx: numerics and lowering
    "HQC201": "values would leave their grid",
    "HQC202": "no exact requantisation exists within the limits",
    "HQC203": "rounding mode has no emission",
    "HQC204": "a value does not fit the arithmetic of the executor",
    "HQC205": "an operator reaches lowering without an exact integer form",
    # 3xx: passes and verification
    "HQC301": "unknown pass, backend or frontend, or a bad option of one",
    "HQC302": "the IR is not valid after a pass",
    "HQC303": "a pass broke its contract",
    "HQC304": "a pass was run in the wrong state",
    "HQC305": "two registrations with one name, or a broken plug-in",
    "HQC306": "textual form or pipeline string is malformed",
    "HQC307": "a pass failed with an exception",
    "HQC308": "a pass took longer than its time limit",
    "HQC309": "the failure to look for does not show",
    "HQC310": "a golden test does not match, or is malformed",
    "HQC311": "a reproducer needs packages that are missing, or of another version",
    # 4xx: backends and checks
    "HQC401": "the backend cannot emit this",
    "HQC402": "emitted widths differ from the IR",
    "HQC403": "not bit-exact",
    "HQC404": "a tool is missing",
    "HQC405": "a tool failed or timed out",
    "HQC406": "a layer is larger than the vendor's tool unrolls by default",
    "HQC407": "a backend of another package failed with an exception",
    "HQC420": "a solver's adders do not compute the product of their matrix",
    "HQC421": "a value is wider than the logic's integers",
    "HQC423": "the emitted Verilog does not keep its latency or initiation interval",
    "HQC424": "the emitted logic does not compute what the layers say",
    "HQC425": "Verilog that is not in the form hqc writes",
    "HQC426": "results of the Verilog depend on pauses, stalls or the state at power-up",
    "HQC430": "no Yosys is installed: estimates of area and delay are what it synthesises",
    "HQC431": "the Verilog of a project cannot be synthesised",
    "HQC432": "a Liberty file is missing or not usable",
    "HQC433": "a synthesis took longer than its time limit",
    "HQC434": "unknown target of an estimate",
    # 6xx: HAWQ and training
    "HQC601": "the HAWQ state dict does not fit the structure of the network",
    "HQC602": "no exact form of a HAWQ layer exists",
    "HQC603": "a module cannot be wrapped for quantisation-aware training",
    "HQC604": "training does not converge to numbers",
    "HQC605": "training data or labels do not fit the model",
    "HQC606": "the training checkpoint does not fit",
    "HQC607": "a working directory holds a run of other settings",
    # 61x: sensitivities and bit widths
    "HQC610": "a sensitivity cannot be measured on this model or loss",
    "HQC611": "no assignment of bit widths keeps the budgets",
    "HQC612": "a bit width problem is not well formed",
    "HQC613": "a saved record of sensitivities is malformed",
    "HQC614": "the integer program was not solved to optimality",
    "HQC500": "internal error",
}


class Exit(enum.IntEnum):
    """Exit statuses of the command line."""

    OK = 0
    REJECTED = 1
    USAGE = 2
    NOT_EXACT = 3
    TOOL = 4
    INTERNAL = 70


#: The exit status that a code leads to where the one who raises it says nothing else.
_EXITS = {
    **dict.fromkeys(("HQC001", "HQC004", "HQC005", "HQC007", "HQC301", "HQC434"), Exit.USAGE),
    **dict.fromkeys(("HQC403", "HQC423", "HQC424", "HQC425", "HQC426"), Exit.NOT_EXACT),
    **dict.fromkeys(("HQC404", "HQC405", "HQC407", "HQC430", "HQC433"), Exit.TOOL),
    "HQC500": Exit.INTERNAL,
}


@dataclass(frozen=True)
class Location:
    """Where a message points: a source line of the user, a node, and the passes that touched it."""

    source: str = ""
    node: str = ""
    passes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.node:
            return self.source
        touched = f", after {', '.join(self.passes)}" if self.passes else ""
        return f"{self.source or 'model'}  (node {self.node}{touched})"


@dataclass(frozen=True)
class Diagnostic:
    """One message. `notes` explain, `helps` say what the user can do."""

    code: str
    message: str
    where: Location = field(default_factory=Location)
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()
    severity: str = "error"

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown diagnostic code {self.code}")

    def __str__(self) -> str:
        lines = [f"{self.severity}[{self.code}]: {self.message}"]
        if str(self.where):
            lines.append(f"  --> {self.where}")
        lines += [f"   = note: {note}" for note in self.notes]
        lines += [f"   = help: {help_}" for help_ in self.helps]
        return "\n".join(lines)


class HqcError(Exception):
    """Carries one or more diagnostics and the exit status they lead to."""

    def __init__(self, diagnostics: Diagnostic | Sequence[Diagnostic], exit_: Exit = Exit.REJECTED):
        found = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        if not found:
            raise ValueError("an HqcError needs at least one diagnostic")
        self.diagnostics = found
        self.exit = exit_
        super().__init__(found)

    def __str__(self) -> str:
        return "\n\n".join(str(d) for d in self.diagnostics)


def reject(
    code: str,
    message: str,
    *,
    where: Location | None = None,
    notes: Sequence[str] = (),
    helps: Sequence[str] = (),
    exit_: Exit | None = None,
) -> HqcError:
    """Build the error of a single diagnostic; the caller raises it. The code decides the exit."""
    found = Diagnostic(code, message, where or Location(), tuple(notes), tuple(helps))
    return HqcError(found, exit_of(code) if exit_ is None else exit_)


def joined(errors: Sequence[HqcError]) -> HqcError | None:
    """One error with the diagnostics of all, and the exit status of the first; None for none."""
    if not errors:
        return None
    return HqcError([found for error in errors for found in error.diagnostics], errors[0].exit)


def exit_of(code: str) -> Exit:
    """The exit status that a code leads to, unless the one who raises it says another."""
    return _EXITS.get(code, Exit.REJECTED)
