"""Make the JSON of an exported program harmless before torch's deserialiser sees it.

The deserialiser trusts what it reads: shape expressions go through `sympy.sympify` (which
evaluates Python), node and argument names become the source of a generated `forward`, guards are
compiled, tree specifications may import modules, and operator names are looked up with `getattr`
from the `torch` package down. So everything is denied that is not known to be needed: every string
must be of the form its place calls for, and what translation does not need is left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

from hqc.diagnostics import HqcError, reject
from hqc.frontends.torch_export import pt2e

_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PATH = re.compile(r"(?!__)\w*(\.(?!__)\w+)*", re.ASCII)
_MODULES = re.compile(r"[\w.,;:@<>\[\]'() -]*", re.ASCII)
_FREE = re.compile(r"[\w.+<= -]*", re.ASCII)
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.((?!__)\w+)\.((?!__)\w+)", re.ASCII)
_ARITHMETIC = re.compile(r"_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge)")
_SYMBOLIC = re.compile(r"torch\.sym_(max|min|not)")
_FRAME = re.compile(r'\s*File "([^"]+)", line (\d+), in (.+)')

#: Operators that reach outside the process.
_DENIED_OPERATORS = {"from_file", "_print"}
#: Kinds of argument that carry subgraphs, objects or functions.
_DENIED_KEYS = {"as_graph", "as_custom_obj", "as_operator", "as_string_to_argument", "custom_obj"}
_EXPRESSIONS = {
    *("Symbol", "Integer", "Add", "Mul", "FloorDiv", "Mod", "Max", "Min"),
    *("Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan"),
}
_TREES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
_MAX_EXPRESSION = 1000


def hostile(what: str, found: object) -> HqcError:
    """The error for content that could make the loader run code, for the caller to raise."""
    return reject(
        "HQC003",
        f"the program file has {what} of a form that is never loaded",
        notes=(f"found {str(found)[:80]!r}",),
        helps=("save the program again with torch.export.save, from a source you trust",),
    )


def program(raw: dict[str, Any]) -> dict[str, Any]:
    """The part of an exported program's JSON that translation needs, checked string by string.

    Raises:
        HqcError: HQC003 for content that could make the loader run code, HQC101/HQC102 for
            custom operators and control flow, HQC002 where the structure is not one of torch's.
    """
    module = _object(raw, "graph_module")
    calls = [c for c in _list(module, "module_call_graph") if c.get("fqn") == ""]
    return {
        "graph_module": {
            "graph": _walk(_object(module, "graph"), "graph"),
            "signature": _walk(_object(module, "signature"), "signature"),
            "module_call_graph": _walk(calls, "module_call_graph"),
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": _walk(_object(raw, "opset_version"), "opset_version"),
        "range_constraints": _walk(_object(raw, "range_constraints"), "range_constraints"),
        "schema_version": _walk(_object(raw, "schema_version"), "schema_version"),
        "verifiers": ["TRAINING"],
        "torch_version": str(_walk(raw.get("torch_version", ""), "torch_version")),
        "guards_code": [],
    }


def plain(raw: Any) -> Any:
    """JSON of names and numbers, such as the table of tensors, checked string by string."""
    return _walk(raw, "config")


def _object(raw: dict[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key)
    if not isinstance(found, dict):
        raise reject("HQC002", f"the program file has no {key}")
    return found


def _list(raw: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = raw.get(key)
    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
        raise reject("HQC002", f"the program file has no {key}")
    return found


def _walk(raw: Any, key: str) -> Any:
    if isinstance(raw, dict):
        return _metadata(raw) if key == "metadata" else {k: _entry(k, raw[k]) for k in raw}
    if isinstance(raw, list):
        return [_walk(item, key) for item in raw]
    if isinstance(raw, str):
        return _STRINGS.get(key, _name)(raw, key)
    return raw


def _entry(key: str, raw: Any) -> Any:
    if key in _DENIED_KEYS:
        raise reject(
            "HQC102",
            "the program has control flow, or objects that are not tensors",
            notes=(f"an argument of kind {key[3:]}",),
        )
    _path(key, "a key")
    return _walk(raw, key)


def _metadata(raw: dict[str, Any]) -> dict[str, str]:
    kept = {}
    if trace := raw.get("stack_trace"):
        kept["stack_trace"] = _trace(str(trace))
    if stack := raw.get("nn_module_stack"):
        kept["nn_module_stack"] = _checked(_MODULES, str(stack), "a module path")
    return kept


def _checked(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise hostile(what, text)
    return text


def _name(text: str, key: str) -> str:
    return _checked(_NAME, text, "a name")


def _path(text: str, key: str) -> str:
    return _checked(_PATH, text, "a path")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _trace(text: str) -> str:
    """A stack trace of which only frames are left, each of two lines of printable characters."""
    lines, kept = text.split("\n"), []
    for i, line in enumerate(lines):
        if found := _FRAME.fullmatch(_printable(line)):
            code = _printable(lines[i + 1]).strip() if i + 1 < len(lines) else ""
            kept.append(f'  File "{found[1]}", line {found[2]}, in {found[3]}\n    {code}')
    return "\n".join(kept).strip()


def _operator(text: str, key: str) -> str:
    if _ARITHMETIC.fullmatch(text) or _SYMBOLIC.fullmatch(text):
        return text
    found = _OPERATOR.fullmatch(text)
    if not found or found[2] in _DENIED_OPERATORS:
        raise hostile("an operator", text)
    if found[1] in ("aten", "hqc"):
        return text
    if found[2] not in pt2e.OPERATORS.get(found[1], ()):
        raise reject(
            "HQC101",
            f"operator {found[1]}::{found[2]} is not known",
            helps=("only ATen operators, and the quantisers of hqc, PT2E and torchao, are",),
        )
    pt2e.register(found[1])
    return text


def _expression(text: str, key: str) -> str:
    if len(text) > _MAX_EXPRESSION:
        raise hostile("a shape expression", text)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise hostile("a shape expression", text) from error
    if not _is_expression(tree.body):
        raise hostile("a shape expression", text)
    return text


def _is_expression(tree: ast.expr) -> bool:
    if isinstance(tree, ast.UnaryOp):
        return isinstance(tree.op, ast.USub) and _is_expression(tree.operand)
    if isinstance(tree, ast.Constant):
        return type(tree.value) is int and abs(tree.value) < 1 << 63
    if isinstance(tree, ast.Name):
        return bool(_NAME.fullmatch(tree.id))
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        return False
    if tree.func.id not in _EXPRESSIONS:
        return False
    if tree.func.id == "Symbol":
        return _is_symbol(tree)
    return not tree.keywords and all(_is_expression(a) for a in tree.args)


def _is_symbol(call: ast.Call) -> bool:
    if len(call.args) != 1 or not isinstance(call.args[0], ast.Constant):
        return False
    name = call.args[0].value
    flags = all(isinstance(k.value, ast.Constant) and k.value.value is True for k in call.keywords)
    return flags and isinstance(name, str) and bool(_NAME.fullmatch(name))


def _treespec(text: str, key: str) -> str:
    found = json.loads(text)
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[0], int):
        raise reject("HQC002", "the program file has a bad tree of inputs or outputs")
    _check_tree(found[1])
    return text


def _check_tree(tree: Any) -> None:
    if not isinstance(tree, dict) or tree.get("type") not in _TREES:
        kind = tree.get("type") if isinstance(tree, dict) else tree
        raise hostile("a tree of inputs or outputs", kind)
    context = tree.get("context")
    inner = json.loads(context) if isinstance(context, str) else context
    names = inner if isinstance(inner, list) else [] if inner is None else [None]
    if not all(isinstance(x, str | int) for x in names):
        raise hostile("a tree of inputs or outputs", context)
    for child in tree.get("children_spec") or []:
        _check_tree(child)


_STRINGS: dict[str, Callable[[str, str], str]] = {
    "expr_str": _expression,
    "target": _operator,
    "in_spec": _treespec,
    "out_spec": _treespec,
    "as_string": lambda text, _: _printable(text),
    "as_strings": lambda text, _: _printable(text),
    "torch_version": lambda text, _: _checked(_FREE, text, "a version"),
    **dict.fromkeys(("parameter_name", "buffer_name", "tensor_constant_name", "fqn"), _path),
}
