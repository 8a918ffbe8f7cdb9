"""The version of hqc: here and nowhere else.

Packaging reads the literal without importing the package, so it works in a wheel, in an editable
install, and in a copy of the tree that was never installed.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
