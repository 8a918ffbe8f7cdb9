"""A lowered model on its way into a directory: emitted, proven, compared, described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.artifact import (
    assemble,
    generate,
    not_exact,
)
from hqc.artifact.page.page import write_page
from hqc.artifact.verdict import Verdict, not_checked
from hqc.backends.layers.figures import figures
from hqc.diagnostics import HqcError
from hqc.diagnostics.events import Watch, stage
from hqc.driver import hardware_settings
from hqc.driver.loading import Loaded
from hqc.equivalence import bit_exactness
from hqc.equivalence.bit_exactness import ExactCore
from hqc.equivalence.translation_validation import OracleComparison, against_oracle, compare
from hqc.execution.reference import Reference
from hqc.ir import array_files
from hqc.pipeline.backend import Backend, BackendOptions, Emission, Prepared
from hqc.pipeline.options import CompileOptions
from hqc.pipeline.plugin_guard import emulate, guarded, measured_by, proven_by

#: Samples that a directory keeps as vectors.
STORED = 1000
#: Samples in the project's own test bench, which vendor simulators run slowly.
BENCH = 100


@dataclass(frozen=True)
class Job:
    """A lowered model on its way into a directory."""

    loaded: Loaded
    reference: Model
    model: Model
    cut: Partition
    exact: ExactCore
    backend: Backend
    options: CompileOptions
    settings: BackendOptions
    training: Mapping[str, Any] | None
    watch: Watch

    def inputs(
        self, given: Mapping[str, array_files.Floats] | None
    ) -> dict[str, array_files.Floats]:
        """The user's samples, then generated ones."""
        fresh = generate(self.model, self.options.check or BENCH, self.options.seed)
        if given is None:
            return fresh
        return {name: np.concatenate([given[name], fresh[name]]) for name in fresh}

    def emit(
        self, fresh: Path, inputs: Mapping[str, array_files.Floats], ready: Prepared
    ) -> Emission:
        """Write the project, the integer graph and the vectors."""
        with stage(f"emit for {self.backend.name}", self.watch) as note:
            stored = {name: x[:STORED] for name, x in inputs.items()}
            codes, expected = self.cut.encode(stored), self.exact.codes(stored)
            bench = tuple({n: c[:BENCH] for n, c in side.items()} for side in (codes, expected))
            with guarded(self.backend):
                emission = ready.emit(fresh / "project", (bench[0], bench[1]))
            assemble.write_vectors(fresh, stored, self.cut.decode(expected))
            note.detail = f"{len(emission.layers)} layers"
            note.remarks += [warning.message for warning in emission.warnings]
        return emission

    def prove(self, fresh: Path) -> dict[str, Any]:
        """What the backend proves of what it wrote; raises where that is not the model."""
        if not hasattr(self.backend, "prove"):
            return {}
        with stage("prove what was written", self.watch) as note:
            found = proven_by(self.backend, self.model, self.cut, fresh / "project")
            note.detail = str(found.get("claim", ""))
        return found

    def verdict(
        self, fresh: Path, inputs: Mapping[str, array_files.Floats]
    ) -> tuple[Verdict, dict[str, Any]]:
        """Compile and run the emulation, and compare; raise HQC403 if any code differs.

        Returns:
            The verdict, and what the emulation measured beside codes.
        """
        proven = bit_exactness.overflow_free(self.cut)
        if self.options.check is None:
            return not_checked(proven), {}
        with stage("compile the emulation", self.watch):
            emulator = emulate(self.backend, fresh / "project", self.cut)
        with stage("compare with the exact executor", self.watch) as note:
            codes = bit_exactness.compare_runs(self.cut, inputs, emulator.run, self.exact)
            note.detail = f"{codes.total} output codes of {codes.samples} samples"
        measured = measured_by(emulator)
        if codes.first is not None:
            raise not_exact(codes.first, codes.mismatches, codes.total)
        oracle = self._against_source({name: x[:STORED] for name, x in inputs.items()})
        verdict = Verdict(
            checked=True,
            exact=True,
            samples=codes.samples,
            mismatches=0,
            total=codes.total,
            first=None,
            overflow_free=proven,
            float_samples=oracle.samples,
            float_ties=oracle.ties,
            float_rounding=oracle.rounding,
        )
        return verdict, measured

    def _against_source(self, few: Mapping[str, array_files.Floats]) -> OracleComparison:
        """Compare the integer graph with the imported one: exactly, and in its own float32."""
        with stage("compare with the imported model", self.watch) as note:
            want = Reference(self.reference).run(few)
            found = compare(self.exact.run(few), want)
            if found.first is not None:
                raise not_exact(found.first, found.mismatches, found.total)
            note.detail = f"{found.total} outputs"
        with stage("compare with its float32 form", self.watch) as note:
            oracle = against_oracle(self.reference, few)
            if oracle.first is not None:
                raise not_exact(oracle.first, oracle.unexplained, oracle.samples)
            rest = "" if oracle.equal == oracle.samples else ", the others explained"
            note.detail = f"{oracle.equal} of {oracle.samples} samples equal{rest}"
        return oracle

    def describe(
        self, fresh: Path, passes: str, records: Any, emission: Emission, verdict: Verdict
    ) -> None:
        """Write the integer graph, the report, the manifest and the page."""
        assemble.write_report(fresh, records, emission, verdict, self.figures(), self.training)
        outcome = assemble.Outcome(
            graph_sha256=assemble.write_graph(fresh, self.model),
            pipeline=passes,
            certificate=self.exact.certificate,
            verdict=verdict,
        )
        hardware = hardware_settings.describe(self.backend, self.settings)
        source = self.loaded.source
        model = {"name": source.name, "file": source.file, "sha256": source.sha256}
        found = assemble.manifest_of(model, self.cut, self.options, hardware, outcome)
        found.write(fresh)
        write_page(fresh, found)

    def figures(self) -> dict[str, dict[str, Any]]:
        """What is known of the layers; nothing where a plug-in reads operators of its own."""
        try:
            return figures(self.model, self.cut)
        except HqcError:
            return {}
