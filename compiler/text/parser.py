"""Reading a module back into a model; see `hqc.text.printer` for what the text looks like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir
from lark import Token, Tree
from onnx_ir import Attr, AttributeType, DataType, Graph, Model, Node, Shape, TensorType, Value

from hqc.diagnostics import HqcError, Location, formats
from hqc.ir import Array, State, set_passes, set_range, set_source, set_state, set_type
from hqc.ir.collector import collector_paused
from hqc.numerics.types import Range
from hqc.text.grammar import Node as Syntax
from hqc.text.grammar import branch, fixed_type, leaf, malformed, read, tokens, trees, unquote
from hqc.text.printer import DTYPES, NUMERIC, PREFIXES, hash_of

#: The beginning of a module, as far as the version.
_HEADER = re.compile(
    r"""(?:\s|//[^\n]*\n)* hqc\.module \s+ (?:@(?:"(?:[^"\\]|\\.)*"|[^\s"]+) \s+)?"""
    r"version \s+ (\d+) \b",
    re.VERBOSE,
)


@collector_paused()
def parse_module(text: str, resources: Mapping[str, Array] | None = None) -> Model:
    """Read the text of a module.

    Args:
        text: what `print_module` wrote, or a person.
        resources: arrays for constants printed as a hash, under that hash (`weights_of`).

    Raises:
        HqcError: HQC306, with line and column: malformed text, a value used before it is
            defined or defined twice, data that does not fit its type, a hash without its array;
            HQC008, another version of the textual IR.
    """
    if header := _HEADER.match(text):  # before the rest, which may be of another grammar
        _check_version(header[1], text, header.start(1))
    return _Reader(text, resources or {}).module(read("module", text))


def _check_version(version: str, text: str, start: int) -> None:
    line = text.count("\n", 0, start) + 1
    column = start - text.rfind("\n", 0, start)
    where = Location(source=f"line {line}, column {column}")
    formats.check(formats.TEXT, str(version), "the module", where)


class _Reader:
    """One reading: the values seen so far by name."""

    def __init__(self, text: str, resources: Mapping[str, Array]):
        self.text = text
        self.resources = resources
        self.values: dict[str, Value] = {}

    def error(self, message: str, at: Token, *helps: str) -> HqcError:
        return malformed("module", self.text, message, at, helps=helps)

    # --- the module, line by line ---------------------------------------------------------------

    def module(self, tree: Syntax) -> Model:
        name, version, state, ir_version, opsets, *lines = tree.children
        _check_version(leaf(version), self.text, leaf(version).start_pos or 0)
        graph = Graph(
            [],
            [],
            nodes=[],
            opset_imports=dict(self.opset(o) for o in trees(opsets)),
            name=self.name(name) if isinstance(name, Token) else None,
        )
        model = Model(graph, ir_version=int(leaf(ir_version)))
        set_state(model, State(str(state)))
        for line in lines:
            self.line(model, branch(line))
        return model

    def line(self, model: Model, line: Syntax) -> None:
        graph = model.graph
        if line.data == "input":
            graph.inputs.append(self.typed(leaf(line.children[0]), branch(line.children[1])))
        elif line.data == "const":
            self.const(graph, line)
        elif line.data == "node":
            graph.append(self.node(line))
        elif line.data == "output":
            graph.outputs.append(self.used(tokens(line)[0]))
        else:
            key, value = tokens(line)
            model.metadata_props[self.string(key)] = self.string(value)

    def opset(self, tree: Syntax) -> tuple[str, int]:
        *domain, version = tokens(tree)
        if not domain:
            return "", int(version)
        return self.bare_domain(domain[0]), int(version)

    def const(self, graph: Graph, line: Syntax) -> None:
        name, type_ = leaf(line.children[0]), branch(line.children[1])
        data = branch(line.children[2])
        known = self.values.get(self.name(name))
        if known is not None and known in graph.inputs and known.const_value is None:
            value = known  # an input with a default
            self.annotate(value, type_)
        else:
            value = self.typed(name, type_)
        array = self.array(data, name, value.dtype, self.fixed_shape(value, name))
        value.const_value = onnx_ir.tensor(array, dtype=value.dtype, name=value.name)
        graph.register_initializer(value)

    def node(self, line: Syntax) -> Node:
        results, op, arguments, attributes, types, label, source, passes = line.children
        inputs = [None if t.type == "ABSENT" else self.used(t) for t in tokens(branch(arguments))]
        names, typed = tokens(branch(results)), trees(types)
        if len(names) != len(typed):
            raise self.error(f"{len(names)} results, {len(typed)} types", names[0])
        outputs = [self.typed(n, t) for n, t in zip(names, typed, strict=True)]
        domain, op_type = self.op(branch(op))
        node = Node(
            domain,
            op_type,
            inputs,
            [self.attribute(a) for a in trees(attributes)],
            outputs=outputs,
            name=self.string(label) if isinstance(label, Token) else "",
        )
        for token in tokens(branch(source)):
            set_source(node, self.string(token))
        if touched := tokens(branch(passes)):
            set_passes(node, [self.bare(token) for token in touched])
        return node

    # --- names ----------------------------------------------------------------------------------

    def string(self, token: Token, text: str | None = None) -> str:
        try:
            return unquote(str(token) if text is None else text)
        except ValueError as error:
            raise self.error(f"a string with a bad escape: {error}", token) from None

    def bare(self, token: Token) -> str:
        return self.string(token) if token.startswith('"') else str(token)

    def bare_domain(self, token: Token) -> str:
        return self.string(token) if token.startswith('"') else PREFIXES.get(token, str(token))

    def name(self, token: Token) -> str:
        text = token[1:]  # after the % or @
        return self.string(token, text) if text.startswith('"') else text

    def op(self, tree: Syntax) -> tuple[str, str]:
        found = tokens(tree)
        if len(found) == 2:
            return self.string(found[0]), self.string(found[1])
        domain, _, op_type = found[0].rpartition(".")
        return PREFIXES.get(domain, domain), op_type

    def used(self, token: Token) -> Value:
        value = self.values.get(self.name(token))
        if value is None:
            raise self.error(f"{token} is used before it is defined", token)
        return value

    # --- values and types -----------------------------------------------------------------------

    def typed(self, name: Token, type_: Syntax) -> Value:
        value = Value(name="" if name.type == "ABSENT" else self.name(name))
        if name.type != "ABSENT":
            if not value.name:
                raise self.error("a value needs a name", name)
            if value.name in self.values:
                raise self.error(f"{name} is defined twice", name)
            self.values[value.name] = value
        self.annotate(value, type_)
        return value

    def annotate(self, value: Value, tree: Syntax) -> None:
        dtype, shape, fixed, range_ = tree.children
        value.type = None if dtype == "?" else TensorType(self.dtype(leaf(dtype)))
        value.shape = self.shape(branch(shape))
        set_type(value, fixed_type(fixed, self.text) if isinstance(fixed, Tree) else None)
        set_range(value, self.range(range_) if isinstance(range_, Tree) else None)

    def dtype(self, token: Token) -> DataType:
        if token not in DTYPES:
            raise self.error(f"unknown element type {token}", token, f"known: {', '.join(DTYPES)}")
        return DTYPES[token]

    def shape(self, tree: Syntax) -> Shape | None:
        found = tokens(tree)
        if found and found[0].type == "ANY_RANK":
            return None
        return Shape([self.dim(token) for token in found])

    def dim(self, token: Token) -> int | str | None:
        if token.type == "INT":
            return int(token)
        return None if token.type == "UNKNOWN" else self.bare(token)

    def range(self, tree: Syntax) -> Range:
        lo, hi, *exponent = tokens(tree)
        try:
            return Range(int(lo), int(hi), int(exponent[0]) if exponent else 0)
        except ValueError as error:
            raise self.error(str(error), lo) from None

    def fixed_shape(self, value: Value, at: Token) -> tuple[int, ...]:
        if value.shape is None or not all(isinstance(d, int) for d in value.shape):
            raise self.error(f"a constant of unknown shape: {value.shape}", at)
        return tuple(int(d) for d in value.shape if isinstance(d, int))

    # --- data -----------------------------------------------------------------------------------

    def array(
        self, data: Syntax, at: Token, dtype: DataType | None, shape: tuple[int, ...]
    ) -> Array:
        if dtype not in NUMERIC:
            raise self.error(f"no constants of element type {'?' if dtype is None else dtype}", at)
        target = dtype.numpy()
        if data.data == "dense":
            return self.resource(tokens(data)[0], target, shape)
        if data.data == "splat":
            return np.broadcast_to(self.numbers(tokens(data), target), shape).copy()
        found = list(self.elements(data, shape, at))
        return self.numbers(found, target).reshape(shape)

    def elements(self, data: Syntax, shape: Sequence[int], at: Token) -> Iterator[Token]:
        """The numbers of nested lists, which must nest as the shape says."""
        if data.data == "number":
            if shape:
                raise self.error(f"one number for a constant of shape {list(shape)}", at)
            yield from tokens(data)
            return
        items = [child for child in data.children if child is not None]
        if not shape or len(items) != shape[0]:
            raise self.error(f"{len(items)} elements where the shape says {list(shape)}", at)
        for item in items:
            if isinstance(item, Token) == (len(shape) > 1):
                raise self.error(f"lists do not nest as the shape {list(shape)} says", at)
            if isinstance(item, Token):
                yield item
            else:
                yield from self.elements(item, shape[1:], at)

    def numbers(self, found: Sequence[Token], dtype: np.dtype) -> Array:
        kind = "b" if dtype.kind == "b" else "i" if dtype.kind in "iu" else "f"
        for token in found:
            self.check_number(token, kind)
        if kind == "b":
            return np.array([token == "true" for token in found], dtype)
        if kind == "f":
            return np.array([float(token) for token in found], np.float64).astype(dtype)
        limits = np.iinfo(dtype)
        whole = [int(token) for token in found]
        for token, number in zip(found, whole, strict=True):
            if not limits.min <= number <= limits.max:
                raise self.error(f"{token} does not fit {dtype.name}", token)
        return np.array(whole, dtype)

    def check_number(self, token: Token, kind: str) -> None:
        if (token.type == "BOOL") != (kind == "b") or (kind == "i" and not _whole(token)):
            wanted = {"b": "true or false", "i": "an integer", "f": "a number"}[kind]
            raise self.error(f"{token} where the element type wants {wanted}", token)

    def resource(self, token: Token, dtype: np.dtype, shape: tuple[int, ...]) -> Array:
        array = self.resources.get(str(token))
        if array is None:
            raise self.error(
                f"the data of {token} is not in the text",
                token,
                "give its array as a resource, or print the module with full weights",
            )
        if array.dtype != dtype or array.shape != shape or hash_of(array) != token:
            raise self.error(
                f"the array given for {token} is another one: {array.dtype}{list(array.shape)}",
                token,
            )
        return array

    # --- attributes -----------------------------------------------------------------------------

    def attribute(self, tree: Syntax) -> Attr:
        name, value = leaf(tree.children[0]), tree.children[1]
        if isinstance(value, Token):
            type_, found = self.item(value)
            return Attr(self.bare(name), type_, found)
        if value.data == "tensor":
            return Attr(self.bare(name), AttributeType.TENSOR, self.tensor(value))
        if value.data == "empty":
            kind = tokens(value)[0]
            return Attr(self.bare(name), AttributeType[kind.upper()], ())
        items = [self.item(child) for child in value.children]
        kinds = {type_ for type_, _ in items}
        if len(kinds) > 1:
            raise self.error("a list of several kinds", name)
        plural = AttributeType[f"{kinds.pop().name}S"]
        return Attr(self.bare(name), plural, tuple(found for _, found in items))

    def item(self, item: Token | Syntax) -> tuple[AttributeType, object]:
        if isinstance(item, Tree):
            return AttributeType.TENSOR, self.tensor(item)
        if item.type == "STRING":
            return AttributeType.STRING, self.string(item)
        if _whole(item):
            return AttributeType.INT, int(item)
        return AttributeType.FLOAT, float(item)

    def tensor(self, tree: Syntax) -> onnx_ir.TensorProtocol:
        dtype, (shape, data) = leaf(tree.children[0]), trees(tree)
        value = Value(name="", shape=self.shape(shape))
        found = self.array(data, dtype, self.dtype(dtype), self.fixed_shape(value, dtype))
        return onnx_ir.tensor(found, dtype=DTYPES[dtype])


def _whole(token: Token) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", token) is not None
