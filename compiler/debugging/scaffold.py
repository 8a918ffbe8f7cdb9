"""`hqc new pass`: a pass that works, and its golden test."""

from __future__ import annotations

import re
from pathlib import Path

from hqc.diagnostics import reject
from hqc.ir.array_files import cannot_write
from hqc.pipeline import Registry, rewriter

_PASS = '''"""{title}: a pass for hqc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnx_ir import Value

from hqc.pipeline import Builder, Const, Decline, Match, Op, Rewriter, Var, rule


@dataclass(frozen=True)
class {title}(Rewriter):
    """Drop products with a factor, one by default."""

    name: ClassVar[str] = "{name}"

    factor: float = 1.0  # an option: -p {name}{{factor=2.0}}

    @rule(Op("Mul", (Var("x"), Const("factor"))))
    def product(self, match: Match, new: Builder) -> Value | Decline | None:
        if not (match.array("factor") == self.factor).all():
            return None
        if self.factor != 1:
            return Decline(f"a product with {{self.factor:g}} is needed")
        return match["x"]  # or what new.op("Add", match["x"], 0.5) gives
'''

_GOLDEN = """// RUN: hqc opt %s -p {name} -P {module}.py

hqc.module @net version 1 state quantised ir 8 opset 17, qonnx 1 {{
  input %x : float32[N,2]
  const %scale : float32[] = 0.125
  const %zero : float32[] = 0.0
  const %bits : float32[] = 8.0
  const %one : float32[] = 1.0
  %q = qonnx.Quant(%x, %scale, %zero, %bits)\
 {{signed = 1, narrow = 0, rounding_mode = "ROUND"}} : float32[N,2] "q"
  %product = Mul(%q, %one) : float32[N,2] "product"
  %y = Relu(%product) : float32[N,2] "y"
  output %y
}}

"""

_TEST = '''"""The golden test of {name}; `hqc golden {module}.hqir` runs it too."""

from pathlib import Path

from hqc.cli.golden import check


def test_{module}() -> None:
    check(Path(__file__).with_name("{module}.hqir"))
'''


def new_pass(name: str, folder: Path) -> tuple[Path, ...]:
    """Write a pass, its golden test, and a test that pytest finds.

    Args:
        name: of the pass, in kebab-case.
        folder: where to; it is made if it is not there.

    Raises:
        HqcError: HQC001, the name does not do; HQC004, a file is there already; HQC007, the
            folder cannot be written.
    """
    title = "".join(word.capitalize() for word in name.split("-"))
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or title in dir(rewriter):
        raise reject("HQC001", f"{name!r} is no name for a pass", helps=("such as drop-ones",))
    if name in Registry.default().passes:
        raise reject("HQC001", f"there is a pass {name} already", helps=("hqc passes",))
    module = name.replace("-", "_")
    texts = {f"{module}.py": _PASS, f"{module}.hqir": _GOLDEN, f"test_{module}.py": _TEST}
    made = tuple(folder / file for file in texts)
    if there := [path for path in made if path.exists()]:
        raise reject("HQC004", f"{there[0]} is there already, and is not overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(made, texts.values(), strict=True):
            content = text.format(name=name, title=title, module=module)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error) from error
    return made
