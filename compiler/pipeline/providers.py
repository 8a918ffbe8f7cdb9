"""Where the passes of other packages come from, for messages and for reproducers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Provider:
    """An installed package and what it registers.

    Attributes:
        distribution, version: as package installers know it.
        target: what the entry point names, "module:Name".
    """

    distribution: str
    version: str
    target: str

    @classmethod
    def of(cls, point: EntryPoint) -> Provider:
        """The package of an entry point."""
        dist = point.dist
        if dist is None:
            return cls("an unnamed package", "", point.value)
        return cls(dist.name, dist.version, point.value)

    @property
    def package(self) -> str:
        """Name and version, in one."""
        return f"{self.distribution} {self.version}".rstrip()

    def __str__(self) -> str:
        return f"{self.package} ({self.target})"
