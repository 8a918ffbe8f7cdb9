"""hqc compiles quantised neural networks to firmware and proves that nothing changed.

    >>> import hqc
    >>> artifact = hqc.compile("jets.onnx", backend="vitis", output="build/jets")
    >>> y = artifact.run(x)

Importing the package loads neither torch nor hls4ml; each function loads what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hqc.diagnostics import HqcError
from hqc.version import __version__

if TYPE_CHECKING:
    from hqc.artifact import Artifact
    from hqc.artifact.agreement import agree
    from hqc.backends.estimate.artifact import estimate
    from hqc.driver import compile, load, run_passes

__all__ = [
    "Artifact",
    "HqcError",
    "__version__",
    "agree",
    "compile",
    "estimate",
    "load",
    "run_passes",
]

_HOMES = {
    "agree": "hqc.artifact.agreement",
    "Artifact": "hqc.artifact",
    "compile": "hqc.driver",
    "estimate": "hqc.backends.estimate.artifact",
    "load": "hqc.driver",
    "run_passes": "hqc.driver",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'hqc' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
