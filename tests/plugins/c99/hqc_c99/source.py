"""The files of a project: NAME.c, NAME.h, and a test driver with vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hqc.analysis.partition import Partition, Port
from hqc.backends.layers import to_hardware
from hqc.numerics import FixedType
from hqc.pipeline import Batch
from hqc_c99.plan import Plan, Step, constants_of
from hqc_c99.tables import Table
from hqc_c99.words import functions


def source_text(name: str, plan: Plan, stack: bool) -> str:
    """NAME.c."""
    kernels = "\n".join(_function(step) for step in plan.steps)
    top = _top(name, plan, stack)
    parts = [f'#include "{name}.h"\n', functions(kernels), kernels, top]
    return "\n".join(part for part in parts if part)


def _function(step: Step) -> str:
    layer = step.layer
    kind = type(layer).__name__.lower()
    lines = [f"/* {layer.name}: {kind}, {_shape(layer.shape)} of {layer.result}"]
    if str(layer.where):
        lines.append(f" * from {_comment(str(layer.where))}")
    if roles := constants_of(layer):
        lines.append(" * " + ", ".join(f"{role} {type_}" for role, type_ in roles))
    codes = f"{step.kernel.bounds.lo}..{step.kernel.bounds.hi}"
    lines.append(f" * codes {codes}, computed in {step.kernel.word} bits */")
    given = [f"const {source.ctype} *x{number or ''}" for number, source in enumerate(step.sources)]
    head = f"static void {layer.name}({', '.join(given)}, {step.ctype} *y)"
    tables = "".join(table.definition for table in step.kernel.tables)
    return "\n".join([*lines, f"{tables}{head}", "{", f"{step.kernel.body}}}", ""])


def _top(name: str, plan: Plan, stack: bool) -> str:
    lines = [f"void {name}({_parameters(name, plan)})", "{"]
    for number, slot in enumerate(plan.slots):
        lines.append(f"    {'' if stack else 'static '}union {{")
        lines += [f"        {s.ctype} {s.layer.name}[{s.layer.size}];" for s in slot.members]
        lines.append(f"    }} slot{number};")
    for step in plan.steps:
        sources = ", ".join(plan.place(source) for source in step.layer.sources)
        lines.append(f"    {step.layer.name}({sources}, {plan.place(step.layer.name)});")
    return "\n".join([*lines, "}", ""])


def _parameters(name: str, plan: Plan) -> str:
    upper = name.upper()
    given = [f"const {name}_in{i}_t in{i}[{upper}_IN{i}]" for i in range(len(plan.inputs))]
    given += [f"{name}_out{i}_t out{i}[{upper}_OUT{i}]" for i in range(len(plan.outputs))]
    return "\n    " + ",\n    ".join(given)


def header_text(name: str, plan: Plan, partition: Partition, stack: bool) -> str:
    """NAME.h."""
    upper = name.upper()
    ports: list[str] = []
    sides = (
        ("IN", partition.inputs, [(x.size, t, x.result) for x, t in plan.inputs]),
        ("OUT", partition.outputs, [(s.layer.size, s.ctype, s.layer.result) for s in plan.outputs]),
    )
    for side, given, held in sides:
        for number, (port, (size, ctype, type_)) in enumerate(zip(given, held, strict=True)):
            ports.append(_port(f"{name}_{side.lower()}{number}", port, type_))
            ports.append(f"#define {upper}_{side}{number} {size}")
            ports.append(f"#define {upper}_{side}{number}_FRACTION {type_.fraction}")
            ports.append(f"typedef {ctype} {name}_{side.lower()}{number}_t;\n")
    sizes = plan.sizes()
    reentrant = "re-entrant: it works on the stack" if stack else "not re-entrant"
    about = f"""\
/* {name}: a quantised network in integers; it needs {sizes["table_bytes"]} bytes of constants,
 * {sizes["buffer_bytes"]} bytes of working memory and {sizes["multiplications"]} multiplications.
 * A port holds codes: value = code / 2**FRACTION, channels last.
 * The function is {reentrant}. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

"""
    tail = """
#ifdef __cplusplus
}
#endif

#endif
"""
    prototype = f"void {name}({_parameters(name, plan)});\n"
    return about + "\n".join(ports) + "\n" + prototype + tail


def _port(name: str, port: Port, type_: FixedType) -> str:
    limits = type_.limits
    return (
        f"/* {name}: {_comment(port.external)}, {_shape(port.shape)} in the model,\n"
        f" * {type_}, codes {limits.lo}..{limits.hi} */"
    )


# --- the test driver ----------------------------------------------------------------------------


def driver_text(name: str, plan: Plan, partition: Partition, vectors: tuple[Batch, Batch]) -> str:
    """main.c: runs the vectors, prints what differs, and fails if anything does."""
    samples = len(next(iter(vectors[0].values())))
    types = [ctype for _, ctype in plan.inputs], [step.ctype for step in plan.outputs]
    tables, calls, checks = [], [], []
    sides = zip(("in", "want"), vectors, (partition.inputs, partition.outputs), types, strict=True)
    for side, batch, ports, ctypes in sides:
        for number, (port, ctype) in enumerate(zip(ports, ctypes, strict=True)):
            codes = to_hardware(np.asarray(batch[port.name], np.int64))
            tables.append(Table(f"{side}{number}", codes, ctype).definition)
    upper = name.upper()
    buffers = [f"    static {name}_out{i}_t out{i}[{upper}_OUT{i}];" for i in range(len(types[1]))]
    calls = [f"in{i} + (size_t)n * {upper}_IN{i}" for i in range(len(types[0]))]
    calls += [f"out{i}" for i in range(len(types[1]))]
    for i in range(len(types[1])):
        size = f"{upper}_OUT{i}"
        checks.append(
            f"        for (long i = 0; i < {size}; i++)\n"
            f"            if (out{i}[i] != want{i}[n * {size} + i]) {{\n"
            f'                printf("sample %ld: out{i}[%ld] is %lld, not %lld\\n", n, i,\n'
            f"                       (long long)out{i}[i], (long long)want{i}[n * {size} + i]);\n"
            f"                wrong++;\n            }}"
        )
    return "\n".join(
        [
            "/* Runs the test vectors; the exit status is 0 if every code is as expected. */",
            f'#include <stddef.h>\n#include <stdio.h>\n\n#include "{name}.h"\n',
            *tables,
            "int main(void)\n{",
            *buffers,
            "    long wrong = 0;",
            f"    for (long n = 0; n < {samples}; n++) {{",
            f"        {name}({', '.join(calls)});",
            *checks,
            "    }",
            f'    printf("%ld codes differ, {samples} samples\\n", wrong);',
            "    return wrong != 0;\n}\n",
        ]
    )


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape) or "1"


def _comment(text: str) -> str:
    """Text that cannot end a comment."""
    return text.replace("*/", "* /").replace("/*", "/ *")
