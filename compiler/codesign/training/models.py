"""The float model that the command line names, and what else is asked of it before work begins."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from hqc.codesign.hessian.objective import evaluating
from hqc.codesign.training.datasets import Dataset
from hqc.codesign.training.rebuild import module_of
from hqc.diagnostics import reject
from hqc.frontends.hawq.wrap import traced_forward
from hqc.pipeline.user_code import is_reference, make

_FORM = "FILE.py:NAME for a function or class that gives an nn.Module, or a .pt2 or .pt program"


def load_model(reference: str, seed: int = 0) -> nn.Module:
    """The float model of "FILE.py:NAME", or of a file of `torch.export.save`.

    Args:
        reference: the user's own Python is run; a program's file is only read.
        seed: of torch's generator, so that a fresh model has the same weights each time.

    Raises:
        HqcError: HQC001, it is neither, or the user's code fails; HQC002 or HQC003, the file is no
            program, or holds pickled objects; HQC603, the program has no float module.
    """
    if is_reference(reference):
        torch.manual_seed(seed)
        found = make(reference, "MODEL", call=nn.Module)
        if not isinstance(found, nn.Module):
            kind = type(found).__name__
            raise reject("HQC001", f"MODEL {reference} gives a {kind}, not an nn.Module")
        if not any(p.is_floating_point() for p in found.parameters()):
            raise reject("HQC001", f"MODEL {reference} has no parameters")
        return found.cpu().float()
    if Path(reference).suffix in (".pt2", ".pt"):
        from hqc.frontends.torch_export.program_files import load_program

        return module_of(load_program(Path(reference)))
    raise reject("HQC001", f"MODEL {reference}: of an unknown form", helps=(_FORM,))


def check_fit(model: nn.Module, data: Dataset) -> int:
    """The number of classes, after a try of two samples.

    Raises:
        HqcError: HQC605, the samples do not fit the model, or the labels its outputs; HQC604, its
            outputs are not finite.
    """
    few = data.x[:2]
    with evaluating(model), torch.no_grad():
        try:
            logits = model(few)
        except Exception as error:  # the user's forward may raise anything
            lines = [line.strip()[:300] for line in str(error).splitlines() if line.strip()]
            raise reject(
                "HQC605",
                f"the model fails on samples {tuple(few.shape)} of {data.name}",
                notes=(f"{type(error).__name__}: {lines[0] if lines else ''}",),
                helps=("the batch is the first axis of x",),
            ) from error
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 2 or shape[0] != len(few):
        raise reject(
            "HQC605",
            f"the model gives {shape or type(logits).__name__} for {len(few)} samples",
            helps=("its output is logits, (N, classes)",),
        )
    if not bool(torch.isfinite(logits).all()):
        raise reject("HQC604", "the outputs of the float model are NaN or infinite")
    labels = [data.y, *([data.valid[1]] if data.valid else [])]
    high = max(int(y.max()) for y in labels)
    if high >= shape[1]:
        raise reject(
            "HQC605",
            f"{data.name} has labels up to {high}, the model {shape[1]} classes",
            helps=("number the classes from 0",),
        )
    return int(shape[1])


def digest(model: nn.Module) -> str:
    """SHA-256 of the model's code as traced, its modules' options, and all its tensors.

    Raises:
        HqcError: HQC603, the forward cannot be traced.
    """
    found = hashlib.sha256(traced_forward(model).code.encode())
    found.update(repr(model).encode())
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def folded(model: nn.Module, layers: Sequence[str]) -> fx.GraphModule:
    """A copy in eval mode in which batch norms right behind these layers are folded into them.

    Its weights are the ones that are quantised in the end, so sensitivities and perturbations are
    taken there.
    """
    traced = traced_forward(copy.deepcopy(model).eval())
    modules = dict(traced.named_modules())
    for node in tuple(traced.graph.nodes):
        users = list(node.users)
        if node.op != "call_module" or node.target not in layers or len(users) != 1:
            continue
        norm = modules.get(str(users[0].target)) if users[0].op == "call_module" else None
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None:
            continue
        layer = modules[node.target]
        fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        path, _, name = node.target.rpartition(".")
        setattr(traced.get_submodule(path), name, fuse(layer, norm))
        users[0].replace_all_uses_with(node)
        traced.graph.erase_node(users[0])
    traced.recompile()
    return traced
