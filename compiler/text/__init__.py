"""The textual forms: modules, pipeline strings and types, with one grammar for all.

`parse(print(x)) == x` for each; nothing here knows what a pass does.
"""

from __future__ import annotations

from hqc.text.parser import parse_module
from hqc.text.pipeline_strings import Repeat, Step, parse_pipeline, parse_type, print_pipeline
from hqc.text.printer import print_module, weights_of

__all__ = [
    "Repeat",
    "Step",
    "parse_module",
    "parse_pipeline",
    "parse_type",
    "print_module",
    "print_pipeline",
    "weights_of",
]
