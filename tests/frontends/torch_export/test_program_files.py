"""Program files: read without running anything that is in them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hqc.diagnostics import HqcError
from hqc.frontends.torch import QuantLinear, QuantReLU
from hqc.frontends.torch_export import export_module, from_exported
from hqc.frontends.torch_export.program_files import load_program


class Bomb:
    """Touches a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.target, "w"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = QuantLinear(4, 3)
        self.act = QuantReLU(6)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.act(self.fc(features).view(features.shape[0], -1))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    net = Net()
    net(torch.randn(8, 4))
    torch.export.save(export_module(net, torch.zeros(2, 4)), tmp_path / "good.pt2")
    return tmp_path / "good.pt2"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it_ran"


def payload(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": Bomb(mark)}, buffer)
    return buffer.getvalue()


def rewrite(good: Path, changes: dict[str, bytes | None], compress: bool = False) -> Path:
    """A copy of a program file with members replaced, added, or left out (None)."""
    out = good.with_name("changed.pt2")
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(out, "w", kind) as new:
        root = old.namelist()[0].split("/")[0]
        members = {n.removeprefix(f"{root}/"): old.read(n) for n in old.namelist()} | changes
        for name, data in members.items():
            if data is not None:
                new.writestr(f"{root}/{name}", data)
    return out


def member(good: Path, name: str) -> Any:
    with zipfile.ZipFile(good) as file:
        root = file.namelist()[0].split("/")[0]
        return json.loads(file.read(f"{root}/{name}"))


def refused(path: Path, mark: Path, *codes: str) -> None:
    with pytest.raises(HqcError) as caught:
        from_exported(load_program(path))
    assert not mark.exists()
    assert caught.value.diagnostics[0].code in codes


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_refused(tmp_path: Path, mark: Path, protocol: int) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Bomb(mark), protocol=protocol))
    refused(path, mark, "HQC003")


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_save_is_refused(tmp_path: Path, mark: Path, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(Bomb(mark), path, _use_new_zipfile_serialization=zipped)
    refused(path, mark, "HQC003")
    torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    refused(path, mark, "HQC003")


def test_torchscript_is_refused(tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    refused(path, mark, "HQC003")


def test_sample_inputs_are_never_unpickled(good: Path, mark: Path) -> None:
    path = rewrite(good, {"data/sample_inputs/model.pt": payload(mark)})
    assert from_exported(load_program(path)).graph.outputs
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/aotinductor/model/model.so",
        "data/aotinductor/model/weights_config.json",
        "serialized_example_inputs.pt",
        "serialized_exported_program.json",
        "data.pkl",
        "models/other.json",
    ],
)
def test_members_that_torch_would_unpickle_are_refused(good: Path, mark: Path, name: str) -> None:
    refused(rewrite(good, {name: payload(mark)}), mark, "HQC003")


@pytest.mark.parametrize("kind", ["weights", "constants"])
@pytest.mark.parametrize("path_name", ["same", "tensor_0", "custom_obj_0", "opaque_obj_0", "../x"])
def test_pickled_tensors_are_refused(good: Path, mark: Path, kind: str, path_name: str) -> None:
    config = f"data/{kind}/model_{kind}_config.json"
    table = member(good, config)
    weights = member(good, "data/weights/model_weights_config.json")["config"]
    entry = dict(next(iter(weights.values())), use_pickle=True)
    if path_name != "same":
        entry["path_name"] = path_name
    table["config"]["fc.weight"] = entry
    changes = {config: json.dumps(table).encode()}
    if kind == "weights" and path_name == "same":
        changes[f"data/weights/{entry['path_name']}"] = payload(mark)
    refused(rewrite(good, changes), mark, "HQC003")


def run_text(mark: Path) -> str:
    return f"__import__('pathlib').Path({str(mark)!r}).touch()"


Change = Callable[[dict[str, Any], str], None]


def _shape(program: dict[str, Any], text: str) -> None:
    values = program["graph_module"]["graph"]["tensor_values"]
    values["features"]["sizes"][0]["as_expr"]["expr_str"] = text


def _rename(program: dict[str, Any], text: str) -> None:
    program["graph_module"]["graph"]["nodes"][0]["name"] = f"x\n    {text}\n    y"


def _rename_input(program: dict[str, Any], text: str) -> None:
    raw = json.dumps(program["graph_module"]).replace(
        '"features"', json.dumps(f"features=0):\n    {text}\n    def f(")
    )
    program["graph_module"] = json.loads(raw)


def _argument(program: dict[str, Any], text: str) -> None:
    call = program["graph_module"]["module_call_graph"][0]
    call["signature"]["forward_arg_names"] = [f"x={text}"]


def _tree(program: dict[str, Any], text: str) -> None:
    tree = {
        "type": "collections.defaultdict",
        "context": json.dumps(
            {"default_factory_module": "antigravity", "default_factory_name": "x"}
        ),
        "children_spec": [],
    }
    call = program["graph_module"]["module_call_graph"][0]
    call["signature"]["out_spec"] = json.dumps([1, tree])


def _enum_tree(program: dict[str, Any], text: str) -> None:
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:X", "name": "x"}])
    tree = {"type": "builtins.dict", "context": context, "children_spec": []}
    call = program["graph_module"]["module_call_graph"][0]
    call["signature"]["out_spec"] = json.dumps([1, tree])


def _target(name: str) -> Change:
    def change(program: dict[str, Any], text: str) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = name

    return change


def _symbol(program: dict[str, Any], text: str) -> None:
    program["range_constraints"] = {text: {"min_val": 0, "max_val": None}}


def _parameter(program: dict[str, Any], text: str) -> None:
    spec = program["graph_module"]["signature"]["input_specs"][0]["parameter"]
    spec["parameter_name"] = text


def _graph_argument(program: dict[str, Any], text: str) -> None:
    node = program["graph_module"]["graph"]["nodes"][0]
    node["inputs"][0]["arg"] = {"as_custom_obj": {"name": "x", "class_fqn": text}}


@pytest.mark.parametrize(
    "change",
    [
        _shape,
        _rename,
        _rename_input,
        _argument,
        _tree,
        _enum_tree,
        _target("torch.hub.load"),
        _target("torch.ops.aten.from_file.default"),
        _target("torch.ops.aten.relu.__class__"),
        _target("_operator.attrgetter"),
        _target("torch.ops.load_library"),
        _target("os.system"),
        _symbol,
        _parameter,
        _graph_argument,
    ],
)
def test_code_in_the_program_is_refused(good: Path, mark: Path, change: Change) -> None:
    program = member(good, "models/model.json")
    change(program, run_text(mark))
    path = rewrite(good, {"models/model.json": json.dumps(program).encode()})
    refused(path, mark, "HQC003", "HQC102")


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s0', positive=True).__class__",
        "(lambda: 1)()",
        "Integer(9)**9**9**9",
        "Symbol('s0', positive=print())",
        "Symbol('a b')",
        "Add(*[1])",
        "Mul(x=1)",
        "[x for x in 'a']",
        "f'{1}'",
        "Max(" * 90 + "1" + ")" * 90,
        "True if 1 else 0",
    ],
)
def test_shape_expressions_are_arithmetic_only(good: Path, mark: Path, text: str) -> None:
    program = member(good, "models/model.json")
    _shape(program, text)
    path = rewrite(good, {"models/model.json": json.dumps(program).encode()})
    refused(path, mark, "HQC003", "HQC002", "HQC104")


def test_guards_traces_and_metadata_run_nothing(good: Path, mark: Path) -> None:
    program = member(good, "models/model.json")
    program["guards_code"] = [run_text(mark)]
    program["verifiers"] = [run_text(mark)]
    program["graph_module"]["metadata"] = {"custom": "{}", "x": run_text(mark)}
    for node in program["graph_module"]["graph"]["nodes"]:
        node["metadata"]["stack_trace"] = f'File "a", line 1, in f\r{run_text(mark)}\n  x'
        node["metadata"]["source_fn_stack"] = "x,torch.hub.load"
        node["metadata"]["from_node"] = "[[]]"
    path = rewrite(good, {"models/model.json": json.dumps(program).encode()})
    loaded = load_program(path)
    loaded.module()(torch.zeros(2, 4))
    from_exported(loaded)
    assert not mark.exists()


def test_damaged_files_are_refused(good: Path, mark: Path) -> None:
    data = good.read_bytes()
    path = good.with_name("damaged.pt2")
    middle = data.index(b'"graph_module"')
    for damaged in (
        b"",
        b"PK\x03\x04",
        b"hello",
        data[: len(data) // 2],
        data[:-30],
        data[:middle] + b"\0\0\0\0" + data[middle + 4 :],
    ):
        path.write_bytes(damaged)
        refused(path, mark, "HQC002")
    refused(good.with_name("absent.pt2"), mark, "HQC002")
    refused(rewrite(good, {"models/model.json": None}), mark, "HQC002")
    refused(rewrite(good, {"models/model.json": b"[" * 100_000}), mark, "HQC002")
    refused(rewrite(good, {"archive_version": b"9"}), mark, "HQC002")


def test_compressed_members_are_refused(good: Path, mark: Path) -> None:
    refused(rewrite(good, {}, compress=True), mark, "HQC002")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", [{"as_int": 1 << 40}, {"as_int": 4}]),
        ("strides", [{"as_int": 1 << 40}, {"as_int": 1}]),
        ("storage_offset", {"as_int": -1}),
        ("dtype", 99),
    ],
)
def test_tensors_stay_within_their_data(good: Path, mark: Path, field: str, value: Any) -> None:
    config = "data/weights/model_weights_config.json"
    table = member(good, config)
    table["config"]["fc.weight"]["tensor_meta"][field] = value
    refused(rewrite(good, {config: json.dumps(table).encode()}), mark, "HQC002")
