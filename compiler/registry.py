"""What is available: an immutable table of passes, frontends and backends.

Built-ins are named here; plug-ins come from the entry points `hqc.passes`, `hqc.frontends` and
`hqc.backends` of installed packages. Nothing registers itself by being imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from typing import TYPE_CHECKING, Any, get_type_hints

from hqc.diagnostics import Exit, HqcError, reject
from hqc.passes_api import Pass
from hqc.text import Step

if TYPE_CHECKING:
    from hqc.backends.base import Backend

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
_BACKENDS = ("hqc.backends.vitis:Vitis", "hqc.backends.catapult:Catapult")
_FRONTENDS = {
    "qonnx": "hqc.frontends.qonnx:normalise_import",
    "torch": "hqc.frontends.torch_export:from_torch",
    "brevitas": "hqc.frontends.brevitas:from_brevitas",
}


@dataclass(frozen=True)
class Registry:
    """Passes by name, frontends by name, backends by name."""

    passes: Mapping[str, type[Pass]]
    frontends: Mapping[str, Frontend]
    backends: Mapping[str, Backend]

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

        Raises:
            HqcError: HQC305, a plug-in is broken or takes a name that is taken.
        """
        registry = cls.builtin()
        for kind in ("passes", "frontends", "backends"):
            for point in entry_points(group=f"hqc.{kind}"):
                registry = registry._with_plugin(kind, point)
        return registry

    def with_pass(self, pass_: type[Pass]) -> Registry:
        """A registry that knows one more pass.

        Raises:
            HqcError: HQC305, the name is taken or the class is not a pass.
        """
        if not (isinstance(pass_, type) and issubclass(pass_, Pass) and pass_.name):
            raise _broken(f"{pass_!r} is not a named subclass of hqc.passes_api.Pass")
        if isabstract(pass_):
            raise _broken(f"pass {pass_.name} does not implement rewrite")
        return replace(self, passes=_merge(self.passes, pass_.name, pass_))

    def with_backend(self, backend: Backend) -> Registry:
        """A registry that knows one more backend; raises like `with_pass`."""
        return replace(self, backends=_merge(self.backends, backend.name, backend))

    def with_frontend(self, name: str, frontend: Frontend) -> Registry:
        """A registry that knows one more frontend; raises like `with_pass`."""
        return replace(self, frontends=_merge(self.frontends, name, frontend))

    def _with_plugin(self, kind: str, point: EntryPoint) -> Registry:
        try:
            found = point.load()
            if kind == "passes":
                return self.with_pass(found)
            if kind == "backends":
                return self.with_backend(found())
            return self.with_frontend(point.name, found)
        except HqcError:
            raise
        except Exception as error:  # a plug-in may fail in any way; the user is told which
            raise _broken(f"plug-in {point.name} ({point.value}): {error!r}") from error

    def make(self, step: Step) -> Pass:
        """A pass from a pipeline step, its options checked against the fields of the pass.

        Raises:
            HqcError: HQC301, no such pass, no such option, or a value of a wrong type.
        """
        pass_ = self.passes.get(step.name)
        if pass_ is None:
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


def _merge(table: Mapping[str, Any], name: str, found: Any) -> dict[str, Any]:
    if name in table and table[name] is not found:
        raise _broken(f"two registrations are called {name}")
    return {**table, name: found}


def _broken(message: str) -> HqcError:
    return reject("HQC305", message, helps=("uninstall or fix the plug-in",), exit_=Exit.USAGE)


def _object(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _lazy(path: str) -> Frontend:
    def call(*args: Any, **kwargs: Any) -> Any:
        return _object(path)(*args, **kwargs)

    return call
