"""Layers as processes with FIFOs of limited depth: does a network run dry, or into a deadlock?"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

import numpy as np

from hqc.backends.hls4ml.streams import packets
from hqc.backends.layers import Fork, Layer, Network

#: ("read" or "write", stream) for each packet that a process wants to move.
Process = Generator[tuple[str, str], None, None]


def ends(network: Network, depth: dict[str, int], samples: int, style: np.random.Generator) -> bool:
    """Whether all samples come out. Each layer reads and writes in an order of its own.

    `style` decides which layers keep their sources and which let packets through, in which order
    they take their sources and copies, and which process runs next.
    """
    given = {layer.name: layer for layer in network.layers}
    given |= {c: layer for layer in network.layers if isinstance(layer, Fork) for c in layer.copies}
    fifos: dict[str, deque[None]] = {name: deque() for name in given}
    processes = [_process(layer, given, samples, style) for layer in network.layers]
    waiting = {number: next(process) for number, process in enumerate(processes)}
    while waiting:
        able = [
            number
            for number, (what, stream) in waiting.items()
            if (what == "read" and fifos[stream])
            or (what == "write" and len(fifos[stream]) < depth.get(stream, 10**9))
        ]
        if not able:
            return False
        number = int(style.choice(able))
        what, stream = waiting[number]
        if what == "read":
            fifos[stream].popleft()
        else:
            fifos[stream].append(None)
        following = next(processes[number], None)
        if following is None:
            del waiting[number]
        else:
            waiting[number] = following
    return True


def _process(
    layer: Layer, given: dict[str, Layer], samples: int, style: np.random.Generator
) -> Process:
    keeps = bool(style.integers(2))
    results = list(layer.copies) if isinstance(layer, Fork) else [layer.name]
    sources = list(layer.sources)
    style.shuffle(results)
    style.shuffle(sources)
    count = packets(layer)
    for _ in range(samples):
        left = {name: packets(given[name]) for name in sources}
        for written in range(count):
            for name in sources:
                # as late as possible, or all of it before anything is written
                rest = 0 if keeps else left[name] * (count - written - 1) // (count - written)
                while left[name] > rest:
                    yield "read", name
                    left[name] -= 1
            for name in results:
                yield "write", name
        for name in sources:
            for _ in range(left[name]):
                yield "read", name
