"""Viewpoints: every spelling of a side is one side, and what is not understood is unknown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue.viewpoints import read_viewpoints, viewpoint_in, viewpoint_of, with_keywords

AXES = (("", "up", "down"), ("", "front", "back"), ("", "left", "right"))
CLOSED = {"".join(sides) for sides in itertools.product(*AXES)} - {""}


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Right", "right"),
        ("R", "right"),
        (" right side", "right"),
        ("right-hand side", "right"),
        ("RIGHT_FLANK", "right"),
        ("rightside", "right"),
        ("RHS", "right"),
        ("l", "left"),
        ("left lateral", "left"),
        ("left profile view", "left"),
        ("Top", "up"),
        ("dorsal", "up"),
        ("ventral side", "down"),
        ("bottom", "down"),
        ("rear", "back"),
        ("Frontal", "front"),
        ("left front", "frontleft"),
        ("Front-Left", "frontleft"),
        ("front/left", "frontleft"),
        ("leftback", "backleft"),
        ("back right", "backright"),
        ("top-left", "upleft"),
        ("right,rear,dorsal", "upbackright"),
        ("left left", "left"),
    ],
)
def test_spellings(text: str, side: str) -> None:
    assert viewpoint_of(text) == side


@pytest.mark.parametrize(
    "text",
    ["", "0", "1", "side", "lateral", "left/right", "both", "leftright", "front back", "B", "T", "fluke", "lefty", "left2", "левый",
     "-", "x" * 5000],
)  # fmt: skip
def test_what_is_not_understood(text: str) -> None:
    assert viewpoint_of(text) is None


def test_the_closed_set_reads_as_itself() -> None:
    assert len(CLOSED) == 26
    assert read_viewpoints(sorted(CLOSED)) == (sorted(CLOSED), [])
    assert read_viewpoints(["Left", None, "UP"]) == (["left", None, "up"], [])


@given(
    text=st.text(max_size=12)
    | st.lists(st.sampled_from([*AXES[0], *AXES[1], *AXES[2], " ", "side", "L"])).map("".join)
)
def test_any_text_is_of_the_set_or_unknown(text: str) -> None:
    side = viewpoint_of(text)
    assert side is None or side in CLOSED
    assert side is None or viewpoint_of(side) == side


def test_many_odd_spellings_give_a_short_remark() -> None:
    viewpoints, (remark,) = read_viewpoints([f"site {i}" for i in range(100)] + ["y" * 500])
    assert set(viewpoints) == {None}
    assert "(photos: 101)" in remark
    assert "and 81 more" in remark
    assert len(remark) < 500


@pytest.mark.parametrize(
    ("keywords", "viewpoint"),
    [
        ("left", "left"),
        ("good; Left Flank, 2019", "left"),
        ("left_side|front", "frontleft"),
        ("left ear torn", None),
        ("left; right", None),
        ("top quality", None),
        ("", None),
    ],
)
def test_a_side_in_keywords(keywords: str, viewpoint: str | None) -> None:
    assert viewpoint_in(keywords) == viewpoint


def test_keywords_fill_in_what_is_not_given() -> None:
    found, notes = with_keywords(["right", None, None, None], ["left", "left", None, "sharp"])
    assert (found, notes) == (["right", "left", None, None], ["viewpoints taken from keywords: left 1"])
    assert with_keywords([None], ["sharp"]) == ([None], [])
