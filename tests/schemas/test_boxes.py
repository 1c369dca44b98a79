"""Boxes: every spelling in the field gives the same four numbers, everything else is refused."""

from __future__ import annotations

import ast
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue.boxes import looks_relative, make_box, parse_number, parse_numbers, to_pixels

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)
SHARE = st.floats(0.01, 1.0)


@settings(deadline=None)
@given(numbers=st.lists(FINITE | st.integers(-(10**9), 10**9), max_size=6))
def test_json_python_and_plain_spellings_are_read_alike(numbers: list[float]) -> None:
    spellings = [
        json.dumps(numbers),
        repr(numbers),
        f"( {'  '.join(map(repr, numbers))} )",
        " " + repr(numbers) + "\n",
    ]
    for spelling in spellings:
        assert parse_numbers(spelling) == numbers


@settings(deadline=None)
@given(numbers=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=5))
def test_numpy_spelling(numbers: list[float]) -> None:
    text = np.array2string(np.array(numbers), precision=17, floatmode="maxprec")
    assert parse_numbers(text) == pytest.approx(numbers)


@settings(deadline=None)
@given(numbers=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=5))
def test_spellings_that_name_numpy(numbers: list[float]) -> None:
    """As `str` of a list of NumPy's numbers, and `repr` of an array, stand in cells that pandas wrote."""
    assert parse_numbers(repr([np.float64(number) for number in numbers])) == numbers
    assert parse_numbers(repr([np.int64(number) for number in numbers])) == [int(n) for n in numbers]
    with np.printoptions(precision=17, floatmode="maxprec", linewidth=200):
        assert parse_numbers(repr(np.array(numbers))) == pytest.approx(numbers)
        assert parse_numbers("np." + repr(np.array(numbers, np.float32))) == pytest.approx(numbers)


TOKENS = st.sampled_from(
    ["1", "-2.5", "1e3", ".5", "0.", "nan", ",", ", ", " ", "[", "]", "(", ")", "--", "_", "None"]
)


@settings(deadline=None)
@given(tokens=st.lists(TOKENS, max_size=9), brackets=st.sampled_from(["[]", "()", "[)", "[["]))
def test_what_both_accept_is_read_as_python_reads_it(tokens: list[str], brackets: str) -> None:
    text = brackets[0] + "".join(tokens) + brackets[1]
    try:
        literal = ast.literal_eval(text)
        numbers = parse_numbers(text)
    except (ValueError, SyntaxError):
        return
    assert numbers == (list(literal) if isinstance(literal, list | tuple) else [literal])


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "1, 2, 3, 4", "[1, 2, 3, 4", "[1,,2,3]", "[1, 2, 3, 4)", "[1, 2, None, 4]", "[nan, 1, 2, 3]", "[[1, 2], [3, 4]]",
        "{'x': 1}", "[1_0, 2, 3, 4]", "[0x10, 2, 3, 4]", "[1;2;3;4]", "[٣, 1, 1, 1]", "__import__('os')", "[1, 2, 3, 4]" * 200,
        "[" * 900, "[Infinity, 1, 1, 1]", "array(1)", "array([1, 2], os.system('x'))", "[np.float64(nan), 1, 1, 1]",
        "[np.float64(np.float64(1)), 1, 1, 1]", "[np.load('x'), 1, 1, 1]", "[np.float64(), 1, 1, 1]", "x.array([1, 2, 3, 4])",
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_numbers(text)


@pytest.mark.parametrize("text", ["", "nan", "inf", "1,5", "1 2", "1_0", "0x1", "--1", "1e", ".", "1" * 2000])
def test_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([1, 2, 3], "not 3"),
        ([1, 2, 3, 4, 5], "not 5"),
        ([], "not 0"),
        ([1, 2, 0, 4], "no area"),
        ([1, 2, 3, -4], "no area"),
        ([math.nan, 2, 3, 4], "missing or infinite"),
        ([1, 2, math.inf, 4], "missing or infinite"),
        ([1, None, 3, 4], "missing or infinite"),
    ],
)
def test_bad_boxes(numbers: list[float | None], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_box(numbers)


@settings(deadline=None)
@given(x=FINITE, y=FINITE, w=st.floats(1e-3, 1e9), h=st.floats(1e-3, 1e9))
def test_good_boxes_keep_their_numbers(x: float, y: float, w: float, h: float) -> None:
    assert make_box([x, y, w, h]) == (x, y, w, h)


@settings(deadline=None)
@given(
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    w=SHARE,
    h=SHARE,
    width=st.integers(2, 9000),
    height=st.integers(2, 9000),
)
def test_shares_and_pixels_convert_back(
    x: float, y: float, w: float, h: float, width: int, height: int
) -> None:
    assert looks_relative((x, y, w, h))
    pixels = to_pixels((x, y, w, h), width, height)
    back = (pixels[0] / width, pixels[1] / height, pixels[2] / width, pixels[3] / height)
    assert back == pytest.approx((x, y, w, h))


def test_a_box_larger_than_a_pixel_is_in_pixels() -> None:
    assert not looks_relative((0.0, 0.0, 2.0, 1.0))
    assert not looks_relative((5.0, 0.0, 1.0, 1.0))
    assert looks_relative((0.0, 0.0, 1.0, float(np.float32(1.0000001))))
    assert looks_relative((-0.1, 0.0, 0.5, 1.0))
