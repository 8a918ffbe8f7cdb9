"""What the vendor's tool may not manage: said when a project is written, never an error."""

from __future__ import annotations

from operator import attrgetter

from hqc.backends.layers import Conv, Dense, Layer, Network, Rearrange
from hqc.backends.layers.layout import flows, packet
from hqc.diagnostics import Diagnostic
from hqc.pipeline.backend import BackendOptions

#: A tensor of this many bits, kept by a rearrangement of streams, is worth a word: a block RAM.
_KEPT_BITS = 36 * 1024


def too_large(
    network: Network, side_by_side: int | None, options: BackendOptions
) -> tuple[Diagnostic, ...]:
    """Warnings (HQC406): more elements or products at once than the limit, streams that are kept.

    Args:
        network: of arrays, or of streams.
        side_by_side: the limit; None where the vendor's tool decides by itself.
        options: of the hardware.
    """
    found = [w for layer in network.layers for w in _kept(layer)] if network.stream else []
    if side_by_side is None:
        return tuple(found)
    found += [w for layer in network.layers for w in _products(layer, side_by_side, options)]
    return (*_wide(network, side_by_side), *found)


def _wide(network: Network, limit: int) -> list[Diagnostic]:
    """Elements side by side: of an array; of a packet, or of what a dense layer collects."""
    width = _collected if network.stream else attrgetter("size")
    large = [layer for layer in network.layers if width(layer) > limit]
    if not large:
        return []
    largest = max(large, key=width)
    if network.stream:
        note = "io_stream keeps a packet, which is the last axis, and what a dense layer reads"
        help_ = "make the last axis smaller, or the tensor in front of the dense layer"
    else:
        note = "io_parallel keeps every element of a tensor in a register of its own"
        help_ = "make the tensors smaller, or use io_stream"
    message = (
        f"{len(large)} layers give more than {limit} elements side by side, "
        f"this one {width(largest)}"
    )
    return [_warning(message, largest, notes=(note,), helps=(help_,))]


def _kept(layer: Layer) -> list[Diagnostic]:
    """Rearrangements that need the whole of their sources before they give anything."""
    if not isinstance(layer, Rearrange) or flows(layer):
        return []
    bits = sum(layer.sizes) * layer.result.width
    if bits < _KEPT_BITS:
        return []
    return [
        _warning(
            f"this rearrangement keeps {sum(layer.sizes)} elements of its input stream",
            layer,
            notes=("it changes the order of pixels, and waits for the last one",),
            helps=("move it into the data, or behind a layer that makes the tensor smaller",),
        )
    ]


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
        _warning(
            f"{total} products with reuse factor {options.reuse_factor}, at most {limit} at once",
            layer,
            helps=(f"set reuse factor {wanted} and strategy resource",),
        )
    ]


def _collected(layer: Layer) -> int:
    n_in = layer.weight.codes.shape[0] if isinstance(layer, Dense) else 0
    return max(packet(layer), n_in)


def _warning(
    message: str, layer: Layer, notes: tuple[str, ...] = (), helps: tuple[str, ...] = ()
) -> Diagnostic:
    return Diagnostic("HQC406", message, layer.where, notes, helps, severity="warning")
