"""What is available: an immutable table of passes, frontends and backends.

Built-ins are named here; plug-ins come from the entry points `hqc.passes`, `hqc.frontends`,
`hqc.operators` and `hqc.backends` of installed packages. Nothing registers itself by being
imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from hqc.diagnostics import Diagnostic, Exit, HqcError, Location, reject
from hqc.pipeline.passes import Pass
from hqc.pipeline.providers import Provider
from hqc.pipeline.user_code import load
from hqc.text import Step

if TYPE_CHECKING:
    from hqc.pipeline.backend import Backend, Estimate
    from hqc.pipeline.extensions import Operator

Frontend = Callable[..., Any]

_PASSES = (
    "hqc.passes.fold_constants:FoldConstants",
    "hqc.passes.normalize:Normalize",
    "hqc.passes.fold_quantizers:FoldQuantizers",
    "hqc.passes.fuse_batchnorm:FuseBatchNorm",
    "hqc.passes.legalize_rounding:LegalizeRounding",
    "hqc.passes.lower_scales:LowerScales",
    "hqc.passes.prune_channels:PruneChannels",
    "hqc.passes.propagate_precision:PropagatePrecision",
    "hqc.passes.dce:DeadCode",
)
_BACKENDS = (
    "hqc.backends.hls4ml.vitis:Vitis",
    "hqc.backends.hls4ml.catapult:Catapult",
    "hqc.backends.rtl.backend:Rtl",
)
_FRONTENDS = {
    "qonnx": "hqc.frontends.qonnx:normalise_import",
    "torch": "hqc.frontends.torch_export:from_torch",
    "brevitas": "hqc.frontends.torch_export.brevitas:from_brevitas",
}
#: What estimates any compiled directory, whatever backend wrote it.
_ESTIMATOR = "hqc.backends.estimate.artifact:estimate_artifact"


#: What a backend has; see `hqc.pipeline.backend.Backend`.
_BACKEND = (
    *("name", "summary", "own_options", "legalise", "capabilities"),
    *("complete", "check", "emit", "emulator", "build"),
)
#: Suffixes of the files that hqc reads itself.
SUFFIXES = (".onnx", ".pt2", ".pt", ".pth", ".hqir")
#: Words that mean something else in pipeline strings.
RESERVED = ("default", "repeat")


@dataclass(frozen=True)
class Registry:
    """Passes by name, frontends by name, backends by name.

    Attributes:
        files: of the user's passes that are in it.
        broken: plug-ins that are left out, each with the reason, as warnings.
        operators: how to write operators of other domains in known ones, by "domain::Op".
        providers: the installed packages that each pass comes from, of passes that hqc does not
            ship; more than one where packages clash, and then the pass is left out.
    """

    passes: Mapping[str, type[Pass]]
    frontends: Mapping[str, Frontend]
    backends: Mapping[str, Backend]
    files: tuple[Path, ...] = ()
    broken: Mapping[str, Diagnostic] = field(default_factory=dict)
    operators: Mapping[str, Operator] = field(default_factory=dict)
    providers: Mapping[str, tuple[Provider, ...]] = field(default_factory=dict)

    @classmethod
    def builtin(cls) -> Registry:
        """What hqc ships."""
        passes = [_object(path) for path in _PASSES]
        backends = [_object(path)() for path in _BACKENDS]
        return cls(
            {p.name: p for p in passes},
            {name: _lazy(path) for name, path in _FRONTENDS.items()},
            {b.name: b for b in backends},
        )

    @classmethod
    def default(cls) -> Registry:
        """Built-ins and the plug-ins of all installed packages.

        A plug-in that is broken, or takes a name that is taken, is left out and listed in
        `broken`: what does not need it works. Naming it in a pipeline raises HQC305.
        """
        registry = cls.builtin()
        for kind in ("passes", "frontends", "operators", "backends"):
            points = sorted(entry_points(group=f"hqc.{kind}"), key=lambda p: (p.name, p.value))
            for point in points:
                try:
                    _check_alone(point, points)
                    registry = registry._with_plugin(kind, point)
                except HqcError as error:
                    registry = registry._without(point, error)
        return registry

    def with_files(self, paths: Iterable[str | Path]) -> Registry:
        """A registry with the passes that these files define, which are run.

        Raises:
            HqcError: HQC001, a file is not there, or raised; HQC305, it defines no pass, or one
                of a name that is taken.
        """
        registry = self
        for path in map(Path, paths):
            module = load(path, "-P")
            own = [x for x in vars(module).values() if _is_pass_of(x, module.__name__)]
            if not own:
                raise _broken(f"{path} defines no subclass of hqc.pipeline.passes.Pass with a name")
            for pass_ in own:
                try:
                    registry = registry.with_pass(pass_)
                except HqcError as error:
                    found = (replace(d, where=Location(str(path))) for d in error.diagnostics)
                    raise HqcError(tuple(found), error.exit) from error
            registry = replace(registry, files=(*registry.files, path))
        return registry

    def digests(self) -> dict[str, str]:
        """Name and SHA-256 of the user's files, for the record."""
        return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in self.files}

    def with_pass(self, pass_: type[Pass]) -> Registry:
        """A registry that knows one more pass.

        Raises:
            HqcError: HQC305, the name is taken or the class is not a pass.
        """
        if not (isinstance(pass_, type) and issubclass(pass_, Pass) and pass_.name):
            raise _broken(f"{pass_!r} is not a named subclass of hqc.pipeline.passes.Pass")
        if pass_.name in RESERVED:
            raise _broken(f"{pass_.name} is a word of pipeline strings, no name for a pass")
        if isabstract(pass_):
            raise _broken(f"pass {pass_.name} does not implement rewrite")
        return replace(self, passes=_merge(self.passes, pass_.name, pass_))

    def with_backend(self, backend: Backend) -> Registry:
        """A registry that knows one more backend; raises like `with_pass`."""
        missing = [name for name in _BACKEND if not hasattr(backend, name)]
        if missing:
            raise _broken(f"{backend!r} is no backend: it has no {missing[0]}")
        return replace(self, backends=_merge(self.backends, backend.name, backend))

    def with_frontend(self, name: str, frontend: Frontend) -> Registry:
        """A registry that knows one more frontend; raises like `with_pass`."""
        taken = {s: n for n, f in self.frontends.items() for s in getattr(f, "suffixes", ())}
        for suffix in getattr(frontend, "suffixes", ()):
            if taken.get(suffix, name) != name or suffix in SUFFIXES:
                owner = taken.get(suffix, "hqc")
                raise _broken(f"frontend {name}: files {suffix} are read by {owner}")
        return replace(self, frontends=_merge(self.frontends, name, frontend))

    def with_operator(self, name: str, operator: Operator) -> Registry:
        """A registry that knows one more operator, "domain::Op"; raises like `with_pass`."""
        domain, separator, op = name.partition("::")
        if not (separator and op) or domain in ("", "ai.onnx") or domain.startswith("qonnx."):
            raise _broken(f"operator {name}: DOMAIN::NAME is wanted, of a domain of your own")
        if not callable(operator):
            raise _broken(f"operator {name}: {operator!r} is no function")
        return replace(self, operators=_merge(self.operators, name, operator))

    def _without(self, point: EntryPoint, error: HqcError) -> Registry:
        (found,) = error.diagnostics
        left_out = replace(found, severity="warning", notes=(*found.notes, "it is left out"))
        return replace(self, broken={**self.broken, point.name: left_out})

    def _with_plugin(self, kind: str, point: EntryPoint) -> Registry:
        try:
            found = point.load()
            if kind == "passes":
                return self._with_plugin_pass(found, Provider.of(point))
            if kind == "backends":
                backend = found()
                if getattr(backend, "name", None) != point.name:
                    raise _broken(f"the name of the backend is not {point.name}")
                return self.with_backend(backend)
            if kind == "operators":
                return self.with_operator(point.name, found)
            return self.with_frontend(point.name, found)
        except HqcError as error:
            (found,) = error.diagnostics
            message = f"plug-in {point.name} ({point.value}): {found.message}"
            raise _broken(message, *found.notes) from error
        except Exception as error:  # a plug-in may fail in any way; the user is told which
            raise _broken(f"plug-in {point.name} ({point.value}): {error!r}") from error

    def _with_plugin_pass(self, found: Any, provider: Provider) -> Registry:
        """As `with_pass`; where packages give one name to different passes, none gets it."""
        name = getattr(found, "name", "")
        known = self.providers.get(name, ())
        if not known or self.passes.get(name) is found:
            registry = self.with_pass(found)
            return replace(registry, providers={**self.providers, name: (*known, provider)})
        clash = (*known, provider)
        warning = Diagnostic(
            "HQC305",
            f"{len(clash)} packages have a pass called {name}: {' and '.join(map(str, clash))}",
            notes=("it is left out",),
            helps=("uninstall all of these packages but one",),
            severity="warning",
        )
        return replace(
            self,
            passes={key: pass_ for key, pass_ in self.passes.items() if key != name},
            broken={**self.broken, name: warning},
            providers={**self.providers, name: clash},
        )

    def check_not_broken(self, name: str) -> None:
        """Raise HQC305 where a plug-in of that name was left out."""
        if name in self.broken:
            raise HqcError(replace(self.broken[name], severity="error"), Exit.USAGE)

    def make(self, step: Step) -> Pass:
        """A pass from a pipeline step, its options checked against the fields of the pass.

        Raises:
            HqcError: HQC301, no such pass, no such option, or a value of a wrong type.
        """
        pass_ = self.passes.get(step.name)
        if pass_ is None:
            self.check_not_broken(step.name)
            raise reject(
                "HQC301",
                f"no pass is called {step.name}",
                helps=(f"passes: {', '.join(sorted(self.passes))}",),
                exit_=Exit.USAGE,
            )
        hints = get_type_hints(pass_)
        known = {f.name.replace("_", "-"): f.name for f in fields(pass_)}
        options = {}
        for key, value in step.options:
            name = known.get(key.replace("_", "-"))
            if name is None:
                raise reject(
                    "HQC301",
                    f"{step.name} has no option {key}",
                    helps=(f"options: {', '.join(known) or 'none'}",),
                    exit_=Exit.USAGE,
                )
            options[name] = _convert(step.name, key, value, hints[name])
        try:
            return pass_(**options)
        except (TypeError, ValueError) as error:  # a missing option, or one the pass objects to
            raise reject("HQC301", f"{step}: {error}", exit_=Exit.USAGE) from error


def estimator() -> Callable[..., Estimate]:
    """What estimates a compiled directory by open tools; its module is imported here."""
    found: Callable[..., Estimate] = _object(_ESTIMATOR)
    return found


def _is_pass_of(found: object, module: str) -> bool:
    own = isinstance(found, type) and issubclass(found, Pass) and found.__module__ == module
    return own and bool(found.name)  # type: ignore[attr-defined]


def _convert(pass_: str, key: str, value: object, wanted: object) -> object:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(wanted, type) and type(value) is not wanted:
        raise reject(
            "HQC301",
            f"{pass_} takes {key} as {wanted.__name__}, not {value!r}",
            exit_=Exit.USAGE,
        )
    return value


def _check_alone(point: EntryPoint, points: Iterable[EntryPoint]) -> None:
    named = [p for p in points if p.name == point.name]
    targets = sorted({p.value for p in named})
    if len(targets) > 1:
        owners = " and ".join(str(Provider.of(p)) for p in named)
        message = f"two plug-ins are called {point.name}: {' and '.join(targets)}"
        raise _broken(message, f"they come from {owners}")


def _merge(table: Mapping[str, Any], name: str, found: Any) -> dict[str, Any]:
    if name in table and table[name] is not found:
        raise _broken(f"two registrations are called {name}")
    return {**table, name: found}


def _broken(message: str, *notes: str) -> HqcError:
    helps = ("fix, rename or remove it",)
    return reject("HQC305", message, notes=notes, helps=helps, exit_=Exit.USAGE)


def _object(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _lazy(path: str) -> Frontend:
    def call(*args: Any, **kwargs: Any) -> Any:
        return _object(path)(*args, **kwargs)

    return call
