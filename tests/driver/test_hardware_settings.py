"""Options of backends: which apply, what values they take, how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from hqc.backends.hls4ml.technology import CatapultOptions
from hqc.diagnostics import Exit, HqcError
from hqc.driver.hardware_settings import (
    describe,
    listing,
    own_options,
    parse_backend_options,
    resolve,
)
from hqc.pipeline.backend import BackendOptions
from hqc.pipeline.options import CompileOptions
from hqc.pipeline.registry import Registry

VITIS = Registry.builtin().backends["vitis"]
CATAPULT = Registry.builtin().backends["catapult"]


@dataclass(frozen=True)
class Own:
    """Options of every type."""

    many: int = 3
    share: float = 0.5
    loud_mode: bool = False
    label: str = ""
    where: Literal["flash", "ram"] = "flash"

    def __post_init__(self) -> None:
        if self.many < 0:
            raise ValueError("many is negative")


class WithOwn:
    """As much of a backend as options need."""

    name = "mine"
    own_options: type[Any] | None = Own

    def capabilities(self) -> Any:
        return VITIS.capabilities()


MINE: Any = WithOwn()


def test_values_are_read_from_text_and_taken_as_they_are() -> None:
    texts = ["many=7", "share=1", "loud-mode=true", "label=a=b", "where=ram"]
    want = Own(7, 1.0, True, "a=b", "ram")
    assert own_options(MINE, parse_backend_options(texts)) == want
    given = {"many": 7, "share": 1.0, "loud_mode": True, "label": "a=b", "where": "ram"}
    assert own_options(MINE, given) == want
    assert own_options(MINE, {}) == Own()
    assert listing(MINE)["where"] == "flash"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"manny": "7"}, "did you mean many?"),
        ({"many": "7.5"}, "type int"),
        ({"many": True}, "type int"),
        ({"share": "half"}, "type float"),
        ({"loud-mode": "yes"}, "true or false"),
        ({"label": 3}, "type str"),
        ({"where": "disk"}, "known: flash, ram"),
        ({"many": "-1"}, "many is negative"),
    ],
)
def test_wrong_values_are_wrong_usage(given: dict[str, Any], words: str) -> None:
    with pytest.raises(HqcError) as found:
        own_options(MINE, given)
    assert found.value.diagnostics[0].code == "HQC001"
    assert found.value.exit is Exit.USAGE
    assert words in str(found.value)


@pytest.mark.parametrize("text", ["many", "=3", ""])
def test_texts_of_another_form(text: str) -> None:
    with pytest.raises(HqcError, match="KEY=VALUE"):
        parse_backend_options([text])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (CompileOptions(libraries="x"), "vitis has no --libraries"),
        (CompileOptions(technology="asic"), "known: fpga"),
        (CompileOptions(strategy="latent"), "did you mean latency?"),
        (CompileOptions(io="serial"), "known: io_parallel"),
        (CompileOptions(backend_options={"x": 1}), "vitis has no --backend-option"),
    ],
)
def test_what_a_backend_does_not_have_is_wrong_usage(options: CompileOptions, words: str) -> None:
    with pytest.raises(HqcError, match="HQC001") as found:
        resolve(VITIS, options)
    assert words in str(found.value)


def test_what_applies_is_given_and_recorded() -> None:
    given = resolve(CATAPULT, CompileOptions(technology="asic", libraries="x", clock_ns=2.0))
    general = {"technology": "asic", "libraries": "x", "clock_ns": 2.0}
    assert given == {**general, "own": CatapultOptions()}
    settings = BackendOptions(**given)
    assert describe(CATAPULT, settings)["libraries"] == "x"
    assert "libraries" not in describe(VITIS, settings)
    assert describe(MINE, BackendOptions(own=Own(many=1)))["own"]["many"] == 1
