"""Type and pipeline strings: parse(print(x)) == x, and errors that say where and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqc.diagnostics import HqcError
from hqc.ir import (
    parse_type,
)
from hqc.numerics.types import FixedType, Overflow, Rounding
from hqc.text import (
    Repeat,
    Step,
    parse_pipeline,
    print_pipeline,
)
from hqc.text import parse_type as parse_type_text

# --- strategies ---------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,5}", fullmatch=True),
    st.sampled_from(
        ["in", "as", "input", "const", "true", "inf", "nan", "repeat", "via", "_", "1e5"]
    ),
    ANY_TEXT,
).filter(bool)
PASS_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True).filter(
    lambda name: name != "repeat"
)
FLOATS = st.floats(allow_nan=False)
OPTIONS = st.one_of(st.booleans(), st.integers(), FLOATS, ANY_TEXT, NAMES)
STEPS = st.builds(
    Step,
    PASS_NAMES,
    st.lists(
        st.tuples(PASS_NAMES | st.just("repeat"), OPTIONS), max_size=3, unique_by=lambda o: o[0]
    ).map(tuple),
)
PIPELINES = st.recursive(
    st.lists(STEPS, min_size=1, max_size=3).map(tuple),
    lambda inner: st.lists(STEPS | inner.map(Repeat), min_size=1, max_size=3).map(tuple),
    max_leaves=5,
)


@st.composite
def fixed_types(draw: st.DrawFn) -> FixedType:
    signed = draw(st.booleans())
    overflows = list(Overflow) if signed else [Overflow.SAT, Overflow.WRAP]
    return FixedType(
        signed,
        draw(st.integers(1, 80)),
        draw(st.integers(-70, 90)),
        draw(st.sampled_from(Rounding)),
        draw(st.sampled_from(overflows)),
    )


# --- type strings -------------------------------------------------------------------------------


@given(fixed_types())
def test_types_come_back(type_: FixedType) -> None:
    assert parse_type_text(str(type_)) == type_
    assert parse_type(str(type_)) == type_


@given(
    st.text("ufixed<>,0123456789- _RNDCOVSATWPHLFU", max_size=30)
    | fixed_types()
    .map(str)
    .flatmap(lambda s: st.integers(0, len(s)).map(lambda i: s[:i] + s[i + 1 :]))
)
def test_the_grammar_and_the_reader_of_annotations_agree(text: str) -> None:
    try:
        want = parse_type(text)
    except ValueError:
        with pytest.raises(HqcError):
            parse_type_text(text)
    else:
        assert parse_type_text(text) == want


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("fixed<16>", 9, "','"),
        ("fixed<16,6", 11, "'>'"),
        ("fixed<16,6,RND_CON>", 12, "a rounding mode"),
        ("float<16,6>", 1, "fixed or ufixed"),
        ("fixed<0,6>", 1, "width 0"),
        ("ufixed<4,6,TRN,SAT_SYM>", 1, "signed"),
        ("fixed<4,6>>", 11, "the end"),
    ],
)
def test_a_bad_type_says_where_and_why(text: str, column: int, expected: str) -> None:
    with pytest.raises(HqcError) as caught:
        parse_type_text(text)
    (found,) = caught.value.diagnostics
    assert found.code == "HQC306"
    assert found.where.source == f"line 1, column {column}"
    assert expected in str(found)
    assert text in found.notes


# --- pipeline strings ---------------------------------------------------------------------------


@given(PIPELINES)
def test_pipelines_come_back(steps: tuple[Step | Repeat, ...]) -> None:
    again = parse_pipeline(print_pipeline(steps))
    assert again == steps
    assert repr(again) == repr(steps)  # True is not 1, and 1 is not 1.0


def test_a_pipeline_of_the_documentation() -> None:
    text = "fold-quantizers,fuse-batchnorm{eps=1e-5},repeat(fold-constants,dce),propagate-precision"
    assert parse_pipeline(text) == (
        Step("fold-quantizers"),
        Step("fuse-batchnorm", (("eps", 1e-5),)),
        Repeat((Step("fold-constants"), Step("dce"))),
        Step("propagate-precision"),
    )


def test_option_values_keep_their_kind() -> None:
    (step,) = parse_pipeline('a{i=-3, f=1., s=foo, q="1", b=true, part=xcu250-figd2104-2L-e}')
    assert step == Step(
        "a",
        (
            ("i", -3),
            ("f", 1.0),
            ("s", "foo"),
            ("q", "1"),
            ("b", True),
            ("part", "xcu250-figd2104-2L-e"),
        ),
    )
    assert isinstance(step, Step)
    assert [type(v) for _, v in step.options] == [int, float, str, str, bool, str]


def test_an_empty_pipeline_has_no_steps() -> None:
    assert parse_pipeline(" ") == ()
    assert print_pipeline(()) == ""


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"),
    [
        ("a,,b", 1, 3, "a name"),
        ("a,\nb,", 2, 3, "a name"),
        ("a{x=}", 1, 5, "a number"),
        ("a{x}", 1, 4, "'='"),
        ("repeat(a", 1, 9, "')'"),
        ("repeat()", 1, 8, "a name"),
        ("repeat", 1, 7, "'('"),
        ("a b", 1, 3, "the end"),
        ("a{x=1,x=2}", 1, 1, "given twice"),
        ('a{x="\\q"}', 1, 5, "escape"),
        ("a%", 1, 2, "unexpected '%'"),
        ("a{x=1e}", 1, 5, "a number"),
    ],
)
def test_a_bad_pipeline_says_where_and_why(
    text: str, line: int, column: int, expected: str
) -> None:
    with pytest.raises(HqcError) as caught:
        parse_pipeline(text)
    (found,) = caught.value.diagnostics
    assert found.code == "HQC306"
    assert found.where.source == f"line {line}, column {column}"
    assert expected in str(found)
    assert text.split("\n")[line - 1] in found.notes


@pytest.mark.parametrize(
    ("name", "options"),
    [("repeat", ()), ("a b", ()), ("", ()), ("a", (("x y", 1),)), ("a", (("x", 1), ("x", 2)))],
)
def test_steps_that_no_string_spells_are_refused(
    name: str, options: tuple[tuple[str, int], ...]
) -> None:
    with pytest.raises(ValueError, match=r"name|twice|syntax"):
        Step(name, options)
