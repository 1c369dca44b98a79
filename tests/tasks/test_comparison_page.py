"""The page of `pairx compare`: everything is in it, nothing is loaded, and no name can do harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.pages.comparison import MethodOnPage, PairOnPage, Picture, render_comparison
from tests.tasks.test_report import EVIL, Page

SETTINGS = {"model": "some", "layer": "blocks.3", "preset": "published"}


def method(name: str = "grad_cam", works: bool = True, **changes: object) -> MethodOnPage:
    picture = Picture.of(np.full((20, 45, 3), 90, np.uint8)) if works else None
    found = MethodOnPage(
        name, "what it is", 6, True, 1.234, (), picture, "" if works else "no map", ("other", -0.001)
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def pair(*methods: MethodOnPage, **changes: object) -> PairOnPage:
    methods = methods or (method("one"), method("two"), method("three", False))
    rho = [[1.0, -0.25, None], [-0.25, 1.0, None], [None, None, None]]
    plain = Picture.of(np.full((20, 45, 3), 200, np.uint8))
    found = PairOnPage("p · q", ("Ada · p.jpg", "Bo · q.jpg"), 0.5, plain, methods, rho)
    return replace(found, **changes)  # type: ignore[arg-type]


def test_every_method_has_its_panel_and_its_row() -> None:
    html = render_comparison([pair()], SETTINGS)
    page = Page(html)
    assert len(page.all("img")) == 3
    assert {image["width"] for image in page.all("img")} == {"45"}
    assert all(str(image["src"]).startswith("data:image/webp") for image in page.all("img"))
    for text in ("1.23 s", "not explained", "no map", "failed", "−0.25", "cosine 0.500", "Ada · p.jpg"):
        assert text in page.text
    assert "−0.00" not in page.text
    assert "nan" not in html.lower()


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = render_comparison([pair()], SETTINGS)
    page = Page(html)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert "default-src 'none'" in html
    assert "url(" not in page.raw["style"]
    assert "http" not in html.replace("http-equiv", "")


def test_several_pairs_are_one_page() -> None:
    page = Page(render_comparison([pair(), pair(title="r · s", note="suspect 1: looks like Bo")], SETTINGS))
    assert [one["href"] for one in page.all("a")] == ["#pair-1", "#pair-2"]
    assert {"pair-1", "pair-2"} <= {one.get("id") for one in page.all("section")}
    assert "suspect 1: looks like Bo" in page.text


def test_a_large_matrix_is_left_out() -> None:
    many = [method(f"m{i}") for i in range(17)]
    page = Page(render_comparison([pair(*many, likeness=[[0.5] * 17] * 17)], SETTINGS))
    assert page.with_class("matrix") == []
    assert Page(render_comparison([pair()], SETTINGS)).with_class("matrix") != []


def test_wide_photos_take_a_row_each() -> None:
    wide = Picture.of(np.full((20, 90, 3), 90, np.uint8))
    assert Page(render_comparison([pair(picture=wide)], SETTINGS)).with_class("wide")
    assert not Page(render_comparison([pair()], SETTINGS)).with_class("wide")


@pytest.mark.parametrize("evil", [EVIL, "\x1b[31m", "\u202egpj", "{{ 7 * 7 }}", "</bdi></p><h1>"], ids=ascii)
def test_hostile_names_are_text(evil: str) -> None:
    methods = (method(evil, about=evil, remarks=(evil,), alike=(evil, 0.5)), method(works=False, reason=evil))
    given = pair(*methods, title=evil, photos=(evil, evil), note=evil, likeness=[[None] * 2] * 2)
    html = render_comparison([given, given], SETTINGS | {"model": evil, evil: evil})
    page = Page(html)
    harmless = Page(render_comparison([pair(*methods, likeness=[[None] * 2] * 2, note="x")] * 2, SETTINGS))
    assert page.all("script") == []
    assert len(page.all("img")) == len(harmless.all("img"))
    assert len(page.all("h1")) == 1
    assert "49" not in page.text
    assert not {"\x1b", "\u202e"} & {*html}
