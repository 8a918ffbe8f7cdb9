"""What the vendor's tool may not manage: said when a project is written, never an error."""

from __future__ import annotations

from hqc.backends.base import BackendOptions
from hqc.backends.layers import Conv, Dense, Layer, Network
from hqc.diagnostics import Diagnostic


def too_large(
    network: Network, side_by_side: int | None, options: BackendOptions
) -> tuple[Diagnostic, ...]:
    """Warnings (HQC406) about layers with more elements or products at once than the limit."""
    if side_by_side is None:
        return ()
    found = [w for layer in network.layers for w in _products(layer, side_by_side, options)]
    large = [layer for layer in network.layers if layer.size > side_by_side]
    if large:
        largest = max(large, key=lambda layer: layer.size)
        message = (
            f"{len(large)} layers give more than {side_by_side} elements side by side, "
            f"this one {largest.size}"
        )
        found.insert(
            0,
            Diagnostic(
                "HQC406",
                message,
                largest.where,
                notes=("io_parallel keeps every element of a tensor in a register of its own",),
                helps=("make the tensors smaller, or stream them where the backend can",),
                severity="warning",
            ),
        )
    return tuple(found)


def _products(layer: Layer, limit: int, options: BackendOptions) -> list[Diagnostic]:
    """Weights whose products are computed at once; a convolution goes window by window."""
    if not isinstance(layer, Dense | Conv):
        return []
    n_in = layer.products if isinstance(layer, Conv) else layer.weight.codes.shape[0]
    total = n_in * layer.weight.codes.shape[-1]
    if total <= limit * options.reuse_factor:
        return []
    factors = [n for n in range(1, n_in + 1) if n_in % n == 0]  # right for every template
    wanted = next((n for n in factors if total <= limit * n), n_in)
    return [
        Diagnostic(
            "HQC406",
            f"{total} products with reuse factor {options.reuse_factor}, at most {limit} at once",
            layer.where,
            helps=(f"set reuse factor {wanted} and strategy resource",),
            severity="warning",
        )
    ]
