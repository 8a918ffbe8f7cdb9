"""The options of the commands that measure, choose and train: sensitivity, allocate, quantize."""

from __future__ import annotations

import argparse

_MODEL = "FILE.py:NAME of a float nn.Module (FILE.py is run), or a .pt2/.pt of torch.export.save"
_DATA = (
    ".npz with x, y (and x_valid, y_valid), FILE.py:NAME of a function that returns (train, valid)"
    " loaders, jets, jets-openml, digits or digits-images"
)


def sensitivity(p: argparse.ArgumentParser) -> None:
    """Options of `hqc sensitivity`."""
    _subject(p)
    _measuring(p)
    p.add_argument(
        "--activations", action="store_true", help="of what enters the layers, not of weights"
    )
    p.add_argument("-o", "--output", metavar="FILE.json", help="to save them in")
    p.add_argument("--plot", metavar="FILE.png", help="draw them with their standard errors")


def allocate(p: argparse.ArgumentParser) -> None:
    """Options of `hqc allocate`."""
    _subject(p)
    _measuring(p)
    group = _choice(p)
    group.add_argument(
        "--bits", default="2..8", metavar="BITS", help="candidates: 2..8 (default), 4,6,8"
    )
    p.add_argument(
        "--traces",
        action="append",
        default=[],
        metavar="FILE.json",
        help="made by hqc sensitivity; else they are measured",
    )
    p.add_argument("--front", action="store_true", help="all best compromises of the first budget")
    p.add_argument("--plot", metavar="FILE.png", help="draw the front and what was chosen")


def quantize(p: argparse.ArgumentParser) -> None:
    """Options of `hqc quantize`."""
    _subject(p)
    p.add_argument("-o", "--output", required=True, metavar="FILE.pt", help="the trained program")
    p.add_argument(
        "--work", metavar="DIR", help="state of an unfinished run (default: FILE.pt.work)"
    )
    p.add_argument("--restart", action="store_true", help="throw that state away first")
    p.add_argument("--plots", metavar="DIR", help="draw traces, bits, training and accuracy")
    p.add_argument(
        "--measure",
        action="store_true",
        help="with a budget of LUTs or area: have Yosys count",
    )
    _measuring(p)
    group = _choice(p)
    group.add_argument(
        "--bits",
        metavar="BITS",
        help="with a budget: candidates (default: 2..8); without: the widths, such as 6, 6/8, or "
        "fc1=6/8,fc2=4/6 (weights/activations)",
    )
    _scheme(p)
    _training(p)


def _subject(p: argparse.ArgumentParser) -> None:
    p.add_argument("model", metavar="MODEL", help=_MODEL)
    p.add_argument("--data", required=True, metavar="D", help=_DATA)
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is random")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")


def _measuring(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("sensitivities")
    group.add_argument(
        "--method", default="hutchinson", help="hutchinson (default), fisher or exact (small nets)"
    )
    group.add_argument(
        "--relative-error",
        type=float,
        default=0.05,
        metavar="E",
        help="standard error at which probing stops (default: 0.05)",
    )
    group.add_argument("--max-probes", type=int, default=500, metavar="N", help="default: 500")
    group.add_argument(
        "--samples",
        type=int,
        default=4096,
        metavar="N",
        help="training samples to measure on (default: 4096)",
    )


def _choice(p: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = p.add_argument_group("bit widths")
    group.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=N",
        help="bops=350k, size=2kB, lut=12k or area=4mm2 (predicted), or a name of --cost-table; "
        "repeatable",
    )
    group.add_argument(
        "--activation-bits",
        metavar="BITS",
        help="8 (default), or candidates that are chosen from: 4..8",
    )
    group.add_argument(
        "--uncoupled",
        action="store_true",
        help="activations 3 bits wider than the layer's own weights, 16 at the first layer",
    )
    group.add_argument(
        "--per-channel",
        action=argparse.BooleanOptionalAction,
        help="weight scales by channel; default: no, but by a budget of LUTs or area as it is best",
    )
    group.add_argument(
        "--power-of-two",
        action=argparse.BooleanOptionalAction,
        help="scales that are powers of two; default: as for --per-channel",
    )
    group.add_argument(
        "--cost-table", metavar="FILE.json", help='{"lut": {"fc1": {"4": 812, "5": 1020}, ...}}'
    )
    return group


def _scheme(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("quantisers")
    group.add_argument("--mode", default="asymmetric", help="asymmetric (default) or symmetric")
    group.add_argument(
        "--ranges", default="ema", help="of activations: ema (default), max or percentile"
    )
    group.add_argument("--percentile", type=float, default=99.9, metavar="P", help="default: 99.9")
    group.add_argument("--bias-bits", type=int, default=32, metavar="B", help="default: 32")


def _training(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=20, metavar="N", help="default: 20")
    group.add_argument(
        "--float-epochs",
        type=int,
        default=0,
        metavar="N",
        help="before anything is quantised (default: 0, the model is trained)",
    )
    group.add_argument(
        "--trial-epochs",
        type=int,
        default=2,
        metavar="N",
        help="where scales are chosen: of each kind, before one is trained (default: 2; 0: by "
        "predicted loss)",
    )
    group.add_argument("--lr", type=float, default=1e-3, metavar="R", help="default: 0.001")
    group.add_argument("--float-lr", type=float, default=1e-3, metavar="R", help="default: 0.001")
    group.add_argument("--batch", type=int, default=256, metavar="N", help="default: 256")
    group.add_argument("--l1", type=float, default=0.0, metavar="F", help="on weights")
    group.add_argument("--patience", type=int, metavar="N", help="epochs without improvement")
    group.add_argument("--freeze-ranges", type=int, metavar="E", help="epoch that fixes ranges")
    group.add_argument(
        "--fold-norms",
        type=int,
        default=1,
        metavar="E",
        help="epoch from which batch norms are folded (default: 1; 0: only when evaluating)",
    )
    group.add_argument("--device", default="cpu", help="cpu (default) or cuda")
