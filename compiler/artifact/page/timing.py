"""Latency and rate of a project where its backend, or a vendor's tool, has stated them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Time between bunch crossings of the LHC: a trigger takes a new sample that often.
CROSSING_NS = 25.0


@dataclass(frozen=True)
class Timing:
    """When results come, and how often.

    Attributes:
        source: who says so.
        clock_ns: period.
        latency: cycles from a sample to its result, or None.
        ii: cycles between samples, or None.
    """

    source: str
    clock_ns: float
    latency: int | None
    ii: int | None

    @property
    def latency_ns(self) -> float | None:
        """From a sample to its result."""
        return None if self.latency is None else self.latency * self.clock_ns

    @property
    def period_ns(self) -> float | None:
        """Between two samples."""
        return None if self.ii is None else self.ii * self.clock_ns

    @property
    def crossings(self) -> float | None:
        """Bunch crossings that a result takes."""
        return None if self.latency_ns is None else self.latency_ns / CROSSING_NS

    @property
    def keeps_up(self) -> bool | None:
        """Whether a sample every bunch crossing is not too often; None if that is not known."""
        return None if self.period_ns is None else self.period_ns <= CROSSING_NS


def timing_of(hardware: Mapping[str, Any], report: Mapping[str, Any]) -> Timing | None:
    """What is known; a vendor's tool counts more than the backend, which knew less.

    Args:
        hardware: the options of the hardware, as the manifest has them.
        report: `report.json`.
    """
    return _built(report.get("build"), hardware) or _emitted(report.get("project"), hardware)


def _emitted(project: object, hardware: Mapping[str, Any]) -> Timing | None:
    """The keys `latency`, `ii` (cycles) and `clock_ns` of what the backend said of its project.

    What its emulation `measured` counts more than what it says itself.
    """
    if not isinstance(project, Mapping):
        return None
    source, measured = "the emitted project", project.get("measured")
    if isinstance(measured, Mapping):
        project = {**project, **measured}
        source = f"the emulation ({measured.get('simulator', 'measured')})"
    clock = _number(project.get("clock_ns")) or _number(hardware.get("clock_ns"))
    latency, ii = (_number(project.get(key)) for key in ("latency", "ii"))
    if clock is None or (latency is None and ii is None):
        return None
    return Timing(source, clock, _whole(latency), _whole(ii))


def _built(build: object, hardware: Mapping[str, Any]) -> Timing | None:
    """The summary of C synthesis, as hls4ml reads it from the tool's files."""
    found = build.get("CSynthesisReport") if isinstance(build, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    clock = _number(hardware.get("clock_ns")) or _number(found.get("TargetClockPeriod"))
    latency, ii = (_number(found.get(key)) for key in ("WorstLatency", "IntervalMax"))
    if clock is None or (latency is None and ii is None):
        return None
    return Timing("C synthesis", clock, _whole(latency), _whole(ii))


def _number(value: object) -> float | None:
    """A positive number, also where a tool wrote it as text."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return None
    return found if 0 < found < float("inf") else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
