"""Every script under tools/ and examples/ runs, at a size of seconds."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("tools", "examples")
MAIN = 'if __name__ == "__main__":'
#: Scripts that another test runs, by that test's name: nothing is run twice.
ELSEWHERE = {
    "tools/mutate.py": "test_the_table_of_mutations_fits_the_sources",
    "tools/reference.py": "test_the_pages_are_up_to_date",
    "examples/jets/train.py": "test_the_script_trains_and_saves",
    "examples/jets/study.py": "test_the_study_writes_what_it_prints",
}


@dataclass(frozen=True)
class Script:
    """A script as it is run here.

    Attributes:
        path: below the root.
        options: `{folder}` is a folder that holds what `inputs` makes and takes what comes out.
        says: a regular expression that stdout has.
        writes: a file in the folder, and a regular expression that it has.
        modules, programs: without these it is skipped.
    """

    path: str
    options: str
    says: str = ""
    writes: tuple[str, str] = ("", "")
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path} {self.options}".replace("{folder}/", "")


RUN = (
    Script(
        "tools/measure_layers.py",
        "-n 1 -o {folder}/one.jsonl",
        says=r"'kind': '\w+', 'seed': 0, .*'lut': [1-9]",
        writes=("one.jsonl", r'^{"kind": .*}$'),
        modules=("pyosys", "da4ml"),
    ),
    Script(
        "tools/fit_cost.py",
        "{folder}/layers.jsonl {folder}/solved.jsonl --test 8 --tries 1",
        says=r"held out +layers.*\nall +8 +[\d.]+%",
        modules=("pyosys", "da4ml"),
    ),
    Script("tools/fuzz.py", "--graphs 2 -f json", says=r'"failures": \[\]'),
    Script(
        "tools/coverage.py",
        "--backends catapult --io io_parallel --only BipolarQuant,\\ scale -o {folder}/table.md",
        writes=("table.md", r"\| BipolarQuant, scale 0.5 \| exact \|"),
        programs=("g++",),
    ),
    Script(
        "tools/sky130/characterise.py",
        "--cells conb_1 -o {folder}/ties.lib",
        writes=("ties.lib", r"cell.*conb_1"),
        modules=("sky130", "klayout"),
        programs=("ngspice",),
    ),
    Script(
        "examples/jets/paper.py",
        "--data {folder}/jets.npz --epochs 1 --bits 4 --check 50 --backends catapult -o {folder}",
        says=r"\| hessian \| 4 bits \|(.|\n)*catapult: bit-exact on 100 samples",
        modules=("matplotlib",),
        programs=("g++",),
    ),
)


@pytest.fixture(scope="module")
def tools() -> Iterator[Any]:
    """`tools/bench.py` and what it imports, as scripts of that folder see them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield importlib.import_module("bench")
        for name in ("bench", "comparison"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of syntheses and compiled emulations that two benchmarks may share."""
    return tmp_path_factory.mktemp("cache")


def run(path: str, *options: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / path), *options],
        cwd=cache,
        env={**os.environ, "HQC_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def need(modules: tuple[str, ...], programs: tuple[str, ...] = ()) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the Python module {module} is not installed")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def inputs(folder: Path) -> None:
    """Layers that Yosys measured once, layers that are counted now, and jets that are noise."""
    shutil.copy(ROOT / "tests" / "measured" / "layers.jsonl", folder)
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 16)).astype(np.float32)
    y = (x[:, :5] + random.normal(scale=0.5, size=(600, 5))).argmax(axis=1)
    np.savez(folder / "jets.npz", X=x, y=y)


@pytest.mark.parametrize("script", RUN, ids=str)
def test_the_script_runs(script: Script, cache: Path, tmp_path: Path) -> None:
    need(script.modules, script.programs)
    inputs(tmp_path)
    if "solved.jsonl" in script.options:
        options = ("--solve", "-n", "14", "-o", str(tmp_path / "solved.jsonl"))
        assert run("tools/measure_layers.py", *options, cache=cache).returncode == 0
    # split by hand, since a folder may have blanks
    words = re.split(r"(?<!\\) ", script.options)
    words = [word.replace("\\ ", " ").replace("{folder}", str(tmp_path)) for word in words]
    done = run(script.path, *words, cache=cache)
    assert done.returncode == 0, done.stderr
    assert re.search(script.says, done.stdout), done.stdout
    name, pattern = script.writes
    assert not name or re.search(pattern, (tmp_path / name).read_text(), re.M)


def test_links_make_a_package(tmp_path: Path) -> None:
    """In a copy: type checkers and the documentation may be reading the links of the tree."""
    for folder in ("compiler", "passes", "frontends", "backends"):
        (tmp_path / folder).symlink_to(ROOT / folder, target_is_directory=True)
    (tmp_path / "tools").mkdir()
    script = shutil.copy(ROOT / "tools" / "link.py", tmp_path / "tools")
    subprocess.run([sys.executable, script], check=True, timeout=60)
    code = "import hqc.cli, hqc.passes, hqc.frontends, hqc.backends, hqc.integrations as last"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(last)"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / ".typeroot")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert str(tmp_path / ".typeroot") in done.stdout


#: Also in `tools/bench.py`, which a test compares with these.
BENCHMARKS = ("emulation", "hessian", "hardware", "sparse", "quick", "passes")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmark_runs_and_makes_its_section(
    tools: Any, name: str, cache: Path, tmp_path: Path
) -> None:
    benchmark = next(b for b in tools.BENCHMARKS if b.name == name)
    need(tuple(module for module, _ in benchmark.needs))
    page = tmp_path / "page.md"
    done = run("tools/bench.py", "--small", "--only", name, "-o", str(page), cache=cache)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith(tools.HEAD)
    assert f"<!-- begin {name} -->\n## {benchmark.title}\n" in text
    rows = re.findall(r"^\| (?!\||network).*\|$", text, re.M)
    assert rows
    if benchmark.render is tools.compared:
        for row in rows:
            assert re.search(r" \| [\d,.]+ \| (ahead|level|\*\*behind\*\*) \|$", row), row


def test_the_benchmarks_are_those_that_run_here(tools: Any) -> None:
    assert tuple(b.name for b in tools.BENCHMARKS) == BENCHMARKS
    pages = (ROOT / "docs" / "benchmarks.md").read_text()
    assert set(re.findall(r"<!-- begin (\w+) -->", pages)) <= set(BENCHMARKS)


def scripts() -> dict[str, bool]:
    """Python files under the folders, and whether they are run and not only imported."""
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    return {file.relative_to(ROOT).as_posix(): MAIN in file.read_text() for file in files}


def test_no_script_is_forgotten(tools: Any) -> None:
    benchmarks = {f"tools/{b.script}" for b in tools.BENCHMARKS}
    here = {script.path for script in RUN} | {"tools/bench.py", "tools/link.py"}
    assert {name for name, runs in scripts().items() if runs} == here | benchmarks | set(ELSEWHERE)
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    for test in ELSEWHERE.values():
        assert f"def {test}(" in tests, test


def test_what_only_is_imported_is_imported() -> None:
    texts = [(ROOT / name).read_text() for name in scripts()]
    for name, runs in scripts().items():
        word = re.compile(rf"^(from|import) {Path(name).stem}\b", re.M)
        assert runs or any(word.search(text) for text in texts), f"nothing uses {name}"


# --- the runner -----------------------------------------------------------------------------


def test_ratios_are_of_the_best_peer_and_say_who_is_behind(tools: Any) -> None:
    figure = sys.modules["comparison"].Figure
    slow = figure("seconds", 3.0, {"one": 2.0, "two": 6.0})
    assert (slow.best, slow.ratio, slow.verdict) == ("one", pytest.approx(2 / 3), "behind")
    fast = replace(slow, what="per second", more_is_better=True)
    assert (fast.best, fast.ratio, fast.verdict) == ("two", 0.5, "behind")
    assert figure("LUTs", 100, {"one": 100.4}).verdict == "level"
    assert figure("LUTs", 100, {"one": 101}).verdict == "ahead"
    comparison = sys.modules["comparison"].Comparison
    found = comparison("a net", (slow, fast), {"tool": "1.2"}, ("a note",))
    assert "0.67 times one: behind" in found.text()
    assert tools.compared(json.loads(found.json()))[4] == (
        "| seconds | 3 | one: 2; two: 6 | 0.67 | **behind** |"
    )
    assert comparison.of(json.loads(found.json())) == found


def test_growth_is_by_node(tools: Any) -> None:
    rows = [
        {"network": "chain", "step": "load", "nodes": nodes, "seconds": s, "per_node_us": s / nodes}
        for nodes, s in ((40, 8.0), (10, 1.0), (20, 3.0))
    ]
    assert tools.grown(rows)[2:] == ["| chain | load | 10, 20, 40 | 1, 3, 8 | 2.00 |"]


def test_sections_are_replaced_and_kept_in_order(tools: Any) -> None:
    last, first = tools.BENCHMARKS[-1], tools.BENCHMARKS[0]
    page = tools.with_section("", last, "## old\n")
    page = tools.with_section(page, first, "## first\n")
    page = tools.with_section(page, last, "## new\n")
    assert page.startswith(tools.HEAD)
    assert re.findall(r"^## (.*)$", page, re.M) == ["first", "new"]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"script": "nothing.py"}, 1, "there is no tools/nothing.py"),
        ({"needs": (("nothing_like_it", "--no-deps it==1"),)}, 4, "pip install --no-deps it==1"),
        ({"script": "comparison.py", "options": ()}, 1, "is no JSON"),
        ({"script": "fuzz.py", "options": ("--nothing",)}, 1, "exit status 2"),
    ],
)
def test_what_does_not_run_is_told(
    tools: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], status: int, words: str
) -> None:
    benchmark = replace(tools.BENCHMARKS[-1], **changes)
    with pytest.raises(tools.BenchError, match=re.escape(words)) as caught:
        tools.run(benchmark, benchmark.options)
    assert caught.value.args[1] == status


def test_a_small_run_does_not_write_the_page(cache: Path) -> None:
    done = run("tools/bench.py", "--small", cache=cache)
    assert done.returncode == 2
    assert "-o" in done.stderr
