"""The grammar of the command line, on the standard library's argparse.

argparse is enough: nested commands, no dependency, and a start-up that imports nothing else.
What it lacks, messages with codes and a suggestion, is added by `_Parser`.
"""

from __future__ import annotations

import argparse
import difflib
import io
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import NoReturn

from hqc.cli.console import COLOURS
from hqc.cli.training import parser as training
from hqc.diagnostics import reject
from hqc.version import __version__

_COMMANDS = "hqc.cli.compile"
_INSPECT = "hqc.cli.inspection"
_TOOLS = "hqc.cli.pass_tools"
_TRAINING = "hqc.cli.training.commands"


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as a diagnostic, with a suggestion where one is near."""

    def error(self, message: str) -> NoReturn:
        raise reject(
            "HQC001",
            message,
            helps=(*_suggestions(self, message), f"{self.prog} --help shows the usage"),
        )


def parse(argv: Sequence[str]) -> argparse.Namespace | str:
    """Parse a command line, or give the text that `--help` or `--version` prints.

    Raises:
        HqcError: HQC001, wrong usage.
    """
    said = io.StringIO()
    root = parser()
    try:
        with redirect_stdout(said):
            options, rest = root.parse_known_args(argv)
    except SystemExit:  # argparse leaves this way after --help and --version
        return said.getvalue().rstrip()
    # argparse gives a positional only words that stand together; options may stand between them
    several = getattr(options, "several", None)
    if rest and (several is None or any(word.startswith("-") for word in rest)):
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    if several is not None:
        getattr(options, several).extend(rest)
    return options


def _suggestions(parser: argparse.ArgumentParser, message: str) -> tuple[str, ...]:
    found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if found:
        known = re.findall(r"[\w.-]+", found[2])
        word = found[1]
    elif found := re.search(r"unrecognized arguments: (--[\w-]+)", message):
        actions = parser._actions
        subs = [a for a in actions if isinstance(a, argparse._SubParsersAction)]
        every = [parser, *(p for s in subs for p in s.choices.values())]
        known = [o for p in every for a in p._actions for o in a.option_strings]
        word = found[1]
    else:
        return ()
    near = difflib.get_close_matches(word, known, n=1)
    return tuple(f"did you mean {n}?" for n in near)


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = min(100, shutil.get_terminal_size().columns)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=width)


def parser() -> argparse.ArgumentParser:
    """The whole grammar."""
    common = _Parser(add_help=False, allow_abbrev=False)
    group = common.add_argument_group("output")
    group.add_argument(
        "-f", "--format", choices=("text", "json"), default="text", help="what stdout carries"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    group.add_argument("--color", choices=COLOURS, default="auto", help="colour on stderr")
    root = _Parser(
        prog="hqc",
        description="Compile quantised neural networks to firmware, bit for bit.",
        epilog="exit status: 0 ok, 1 model rejected, 2 usage, 3 not bit-exact,\n"
        "  4 tool missing or failed, 70 internal error, 130 interrupted",
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    root.add_argument("-V", "--version", action="version", version=f"hqc {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str, summary: str, module: str, describe: Callable[[argparse.ArgumentParser], None]
    ) -> None:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            parents=[common],
            formatter_class=_formatter,
            allow_abbrev=False,
        )
        sub.set_defaults(module=module, function=f"{name}_command")
        describe(sub)

    command("compile", "compile a model into a checked project", _COMMANDS, _compile)
    command("run", "run a compiled directory on inputs", _COMMANDS, _run)
    command("check", "rebuild the emulation of directories and compare", "hqc.cli.check", _check)
    command("build", "run the backend's own tool on a directory", _COMMANDS, _build)
    command("estimate", "estimate area and delay with open tools", "hqc.cli.estimate", _estimate)
    command("report", "write the page of a directory anew", "hqc.cli.report", _report)
    command("opt", "run passes over a model", "hqc.cli.opt", _opt)
    command("bisect", "find the pass and the rewrite that change a value", _TOOLS, _bisect)
    command("reduce", "make a graph on which passes fail small", _TOOLS, _reduce)
    command("new", "write a pass or a backend to start from", _TOOLS, _new)
    command("golden", "run golden tests of passes", _TOOLS, _golden)
    command("show", "print a model's graph, or what a directory holds", _INSPECT, _show)
    command("export", "write a model for another compiler", "hqc.cli.export", _export)
    command("sensitivity", "measure how sensitive each layer is", _TRAINING, training.sensitivity)
    command("allocate", "choose bit widths within budgets", _TRAINING, training.allocate)
    command(
        "quantize", "train a float model into a mixed-precision one", _TRAINING, training.quantize
    )
    command("passes", "list the passes and the default pipeline", _INSPECT, _passes_from)
    command("backends", "list the backends and what they emit", _INSPECT, _nothing)
    command("doctor", "check versions, compilers, vendor tools and plug-ins", _INSPECT, _nothing)
    command("explain", "say what a diagnostic code means", _INSPECT, _explain)
    return root


_MODEL = ".onnx (QONNX), .pt2/.pt (torch.export.save), .pt (HAWQ state dict), or .hqir"


def _hawq_model(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--hawq-model",
        metavar="FILE.py:NAME",
        help="class whose forward calls the layers of a HAWQ state dict; FILE.py is run",
    )


def _loading(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("model")
    group.add_argument("model", metavar="MODEL", help=_MODEL)
    _hawq_model(group)
    group.add_argument(
        "--samples", metavar="FILE", help="your own samples, .npy or .npz, in the model's units"
    )
    group.add_argument(
        "--input-type",
        action="append",
        default=[],
        metavar="[NAME=]TYPE",
        help="quantise an input, such as x=fixed<16,6>",
    )
    group.add_argument(
        "--quantize",
        "--quantise",
        dest="quantise",
        type=int,
        metavar="B",
        help="quantise a float model to B bits after training; needs --samples",
    )
    group.add_argument("--seed", type=int, default=0, metavar="S", help="of generated samples")


def _compile(p: argparse.ArgumentParser) -> None:
    _loading(p)
    p.add_argument(
        "-o", "--output", metavar="DIR", help="what to make (default: build/NAME-BACKEND)"
    )
    _passes(p)
    p.add_argument(
        "--check", default="1000", metavar="N|off", help="samples compared (default: 1000)"
    )
    p.add_argument("--save-ir", action="store_true", help="keep the graph after each pass")
    group = p.add_argument_group("hardware")
    group.add_argument(
        "-b",
        "--backend",
        default="vitis",
        help="such as vitis, catapult or rtl (hqc backends lists them)",
    )
    group.add_argument("--io", help="io_parallel (default) or io_stream")
    group.add_argument("--part", help="FPGA part number")
    group.add_argument("--technology", help="fpga, or asic where the backend knows it")
    group.add_argument("--libraries", metavar="NAMES", help="ASIC libraries, for technology asic")
    group.add_argument("--clock", type=float, metavar="NS", help="clock period in nanoseconds")
    group.add_argument("--reuse-factor", type=int, metavar="R", help="products per multiplier")
    group.add_argument("--strategy", help="latency or resource")
    group.add_argument(
        "--backend-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option that only this backend has (hqc backends)",
    )
    group.add_argument("--build", action="store_true", help="run the vendor's tool as well")


def _run(p: argparse.ArgumentParser) -> None:
    p.add_argument("directory", metavar="DIR", help="made by hqc compile")
    p.add_argument(
        "--input", required=True, metavar="FILE", help=".npy for one input, .npz by names"
    )
    p.add_argument("-o", "--output", required=True, metavar="FILE", help=".npy or .npz to write")
    p.add_argument(
        "--engine",
        default="emulation",
        help="emulation (the project, default), the name of its backend (the same) "
        "or exact (integers)",
    )


def _check(p: argparse.ArgumentParser) -> None:
    p.set_defaults(several="directories")
    p.add_argument(
        "directories",
        nargs="+",
        metavar="DIR",
        help="made by hqc compile; several of one model are also compared with each other",
    )
    p.add_argument(
        "--samples",
        default="0",
        metavar="N|FILE",
        help="beside the stored vectors: N fresh samples, or your own",
    )
    p.add_argument("--seed", type=int, default=1, metavar="S", help="of fresh samples")


def _build(p: argparse.ArgumentParser) -> None:
    p.add_argument("directory", metavar="DIR", help="made by hqc compile")
    p.add_argument(
        "--timeout", type=float, default=14400.0, metavar="S", help="seconds it may take"
    )


def _estimate(p: argparse.ArgumentParser) -> None:
    p.add_argument("directory", metavar="DIR", help="made by hqc compile")
    p.add_argument(
        "--target",
        default="fpga-xcup",
        metavar="T",
        help="fpga-xcup (default), asic-osu018, or asic-PATH.lib with a Liberty file",
    )
    p.add_argument(
        "--clock", type=float, metavar="NS", help="clock period (default: the compile's)"
    )
    p.add_argument(
        "--timeout",
        type=float,
        default=1800.0,
        metavar="S",
        help="seconds that one synthesis may take (default: 1800)",
    )
    p.add_argument("--flat", action="store_true", help="one synthesis instead of one per layer")
    p.add_argument(
        "--quick", action="store_true", help="predict it in milliseconds instead: no synthesis"
    )


def _report(p: argparse.ArgumentParser) -> None:
    p.add_argument("directory", metavar="DIR", help="made by hqc compile")
    p.add_argument("--open", action="store_true", help="show it in the browser")


def _opt(p: argparse.ArgumentParser) -> None:
    _loading(p)
    _passes(p)
    p.add_argument("-o", "--output", metavar="FILE", help=".onnx or .hqir to write")
    group = p.add_argument_group("watching")
    group.add_argument(
        "--print-before", metavar="PASS|all", help="print the graph before that pass"
    )
    group.add_argument("--print-after", metavar="PASS|all", help="print the graph after that pass")
    group.add_argument("--print-diff", metavar="PASS|all", help="print what that pass changes")
    group.add_argument("--stats", action="store_true", help="rewrites and remarks by pass and rule")
    group.add_argument("--timing", action="store_true", help="a table of times")
    group.add_argument(
        "--dump-dir", metavar="DIR", help="write NN-pass.onnx and .hqir, 00 is given"
    )
    group.add_argument(
        "--start-after", type=int, metavar="NN", help="go on from that state in --dump-dir"
    )
    checks = p.add_mutually_exclusive_group()
    checks.add_argument(
        "--no-verify", action="store_true", help="do not check the passes' contracts"
    )
    checks.add_argument(
        "--verify-each",
        action="store_true",
        help="beside all other checks, run qonnx on the graph after each pass",
    )


def _passes_from(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "-P",
        "--passes-from",
        action="append",
        default=[],
        metavar="FILE.py",
        help="passes of your own: the file is run",
    )


def _passes(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("passes")
    group.add_argument(
        "-p", "--pipeline", metavar="P", help="such as fold-constants,dce or my-pass,default"
    )
    _passes_from(group)
    group.add_argument(
        "--pass-timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds that one pass may take, 0 for any (default: 600)",
    )
    group.add_argument(
        "--reproducer",
        metavar="FILE",
        help="reproducer.json of a reproducer: say which packages are missing or differ",
    )


def _bisect(p: argparse.ArgumentParser) -> None:
    _loading(p)
    _passes(p)


def _reduce(p: argparse.ArgumentParser) -> None:
    _loading(p)
    _passes(p)
    p.add_argument("-o", "--output", required=True, metavar="FILE", help=".onnx or .hqir to write")
    p.add_argument(
        "--check",
        default="value-changed",
        metavar="HOW",
        help="how it fails: value-changed (default), crash, or a code such as HQC303",
    )
    p.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds after which the smallest graph so far is taken (default: 300)",
    )


def _new(p: argparse.ArgumentParser) -> None:
    p.add_argument("kind", choices=("pass", "backend"), help="what to write")
    p.add_argument("name", metavar="NAME", help="in kebab-case, such as drop-ones")
    p.add_argument("--dir", default=".", metavar="DIR", help="where to (default: here)")


def _golden(p: argparse.ArgumentParser) -> None:
    p.set_defaults(several="files")
    p.add_argument("files", nargs="+", metavar="FILE.hqir", help="with a RUN line and CHECK lines")
    p.add_argument("--update-golden", action="store_true", help="write the CHECK lines anew")


def _export(p: argparse.ArgumentParser) -> None:
    p.add_argument("model", metavar="MODEL|DIR", help=f"{_MODEL}, or made by hqc compile")
    forms = ("mlir", "onnx-integer", "finn")
    p.add_argument("--to", required=True, choices=forms, help="what to write")
    p.add_argument("-o", "--output", required=True, metavar="FILE", help=".mlir or .onnx to write")


def _show(p: argparse.ArgumentParser) -> None:
    p.add_argument("model", metavar="MODEL|DIR", help=f"{_MODEL}, or made by hqc compile")
    _hawq_model(p)


def _explain(p: argparse.ArgumentParser) -> None:
    p.add_argument("code", nargs="?", help="such as HQC201; without it, all of them")


def _nothing(p: argparse.ArgumentParser) -> None:
    """Commands without arguments of their own."""
