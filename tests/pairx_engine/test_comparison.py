"""Several methods on one pair: the drawn sheet, and the methods' maps beside one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pairx_engine.comparison import ComparedPair, Comparer, chosen_methods, few
from pairx_engine.engine import Engine
from pairx_engine.errors import EngineError
from pairx_engine.explanations import Explained, State, Subject, explanations, register, unregister, usual
from pairx_engine.faithfulness.agreement import rank_correlation
from pairx_engine.figure import Comparison, ComparisonInput, FigurePhoto, MethodPanel, draw_comparison
from pairx_engine.figure.comparison import LEAST_HEIGHT, ROOM, SCALE, WIDE_ROOM, strength
from pairx_engine.figure.writing import width_of, wrapped
from schemas.settings import Settings
from tasks.job import recipe_of

SIDE = 48


def photo(aspect: float = 1.0, title: str = "p · Ada", grey: int = 128) -> FigurePhoto:
    chip = np.full((SIDE, SIDE, 3), grey, np.uint8)
    picture = np.full((100, round(100 * aspect), 3), grey, np.uint8)
    return FigurePhoto(chip, picture, (round(100 * aspect), 100), title)


def spot(row: int, column: int) -> np.ndarray:
    found = np.zeros((SIDE, SIDE))
    found[row - 3 : row + 3, column - 3 : column + 3] = 1.0
    return found


def panel(name: str = "m", **changes: Any) -> MethodPanel:
    values: dict[str, Any] = {"about": "what it is", "cost": "1.00 s", "maps": (spot(12, 12), spot(30, 36))}
    return MethodPanel(name, **(values | changes))


def draw(*methods: MethodPanel, aspect: float = 1.0, **changes: Any) -> Comparison:
    photos = changes.pop("photos", (photo(aspect), photo(aspect)))
    return draw_comparison(ComparisonInput(photos, "cosine 0.9", methods, **changes))


# The sheet


def test_all_panels_have_the_frame_of_the_photos() -> None:
    drawn = draw(panel("one"), panel("two"), panel("three"))
    assert {one.shape for one in drawn.panels if one is not None} == {drawn.photos.shape}
    assert drawn.photos.shape[0] <= ROOM.height
    assert drawn.photos.shape[1] <= ROOM.width
    assert drawn.sheet.dtype == np.uint8
    assert drawn.sheet.shape[1] > 2 * drawn.photos.shape[1]


def test_a_map_is_heat_at_its_place_and_nowhere_else() -> None:
    drawn = draw(panel())
    (found,) = drawn.panels
    assert found is not None
    changed = np.abs(found.astype(int) - drawn.photos).max(axis=2)
    half = ROOM.width // 2
    for part, (row, column) in ((changed[:, : half - 6], (12, 12)), (changed[:, half + 6 :], (30, 36))):
        scale = part.shape[0] / SIDE
        rows, columns = np.nonzero(part > 20)
        assert abs(rows.mean() / scale - row) < 1.5
        assert abs(columns.mean() / scale - column) < 1.5
        assert len(rows) < 0.1 * part.size
    # Heat lets the photo through, so that it is not mistaken for a part of it.
    assert (found[changed > 20] != drawn.photos[changed > 20]).any(axis=1).all()


def test_half_of_a_photo_stays_clear_and_outliers_do_not_hide_the_rest() -> None:
    random = np.random.default_rng(0)
    high = 5 + random.random((96, 96))
    assert (strength(high) == 0).mean() >= 0.5
    assert strength(high).max() == 1
    far = high.copy()
    far[40, 40] = 1e6
    assert (strength(far)[:20, :20] > 0.1).any() or strength(far)[40, 40] == 1
    below = -high
    assert strength(below).max() == 0
    assert strength(np.full((96, 96), 7.0)).max() == 0
    lone = np.zeros((96, 96))
    lone[50, 50] = 1e-9
    assert strength(lone)[50, 50] == 1


def test_it_is_drawn_the_same_every_time() -> None:
    methods = [panel("one"), panel("two", maps=None, reason="no layer"), panel("three", remarks=("blind",))]
    assert (draw(*methods).sheet == draw(*methods).sheet).all()


def test_a_failed_method_has_a_place_with_its_reason() -> None:
    long = "the layer gives no single map " * 20
    failed = draw(panel("one"), panel("two", maps=None, reason=long))
    other = draw(panel("one"), panel("two", maps=None, reason="because"))
    assert failed.panels[1] is None
    assert failed.panels[0] is not None
    assert failed.sheet.shape == other.sheet.shape == draw(panel("one"), panel("two")).sheet.shape
    assert (failed.sheet != other.sheet).any()
    with pytest.raises(ValueError, match="neither maps nor a reason"):
        draw(panel(maps=None))
    with pytest.raises(ValueError, match="needs a method"):
        draw()


def test_wide_photos_take_a_row_each() -> None:
    narrow, wide = draw(panel("one"), panel("two")), draw(panel("one"), panel("two"), aspect=2.7)
    assert wide.photos.shape[1] > 2 * narrow.photos.shape[1] * 0.9
    assert wide.photos.shape[1] <= WIDE_ROOM.width
    assert wide.photos.shape[0] >= LEAST_HEIGHT * SCALE
    assert wide.sheet.shape[1] < 1.1 * WIDE_ROOM.width


def test_photos_of_any_shape_are_drawn_in_their_own() -> None:
    tall = draw(panel(), photos=(photo(0.3), photo(0.9)))
    assert tall.photos.shape[0] == ROOM.height
    assert tall.photos.shape[1] == pytest.approx(ROOM.height * 1.2 + 12, abs=2)


def test_correspondences_are_lines() -> None:
    ends = np.array([[10.0, 40.0]]), np.array([[40.0, 40.0]])
    with_lines = draw(panel(points=ends, relevance=np.ones(1)))
    without = draw(panel())
    a, b = with_lines.panels[0], without.panels[0]
    assert a is not None
    assert b is not None
    rows, columns = np.nonzero((a != b).any(axis=2))
    assert rows.mean() == pytest.approx(a.shape[0] * 40 / SIDE, abs=3)
    assert np.ptp(columns) > a.shape[1] / 3
    assert (draw(panel(points=ends, relevance=np.ones(1)), n_lines=0).panels[0] == b).all()


@pytest.mark.parametrize("title", ["", "x" * 600, "Zoë · Ада · 象", "two\nlines\t<script>", "\x1b[31m"])
def test_any_title_and_any_text_can_be_drawn(title: str) -> None:
    texts = {"about": title, "remarks": (title,), "cost": "1 s"}
    drawn = draw(
        panel(title, **texts), panel(maps=None, reason=title or "no"), photos=(photo(title=title),) * 2
    )
    assert drawn.sheet.shape[1] == draw(panel()).sheet.shape[1]


def test_text_is_wrapped_within_its_width() -> None:
    text = "a map of the photo " * 9 + "w" * 300
    for most in (1, 2, 30):
        lines = wrapped(text, 13, 200, most)
        assert len(lines) <= most
        assert all(width_of(line, 13) <= 200 for line in lines)
    assert " ".join(wrapped("some short text", 13, 90, 9)) == "some short text"
    assert len(wrapped("some short text", 13, 90, 9)) == 2
    assert wrapped(text, 13, 200, 1)[0].endswith("...")
    assert wrapped("", 13, 200, 2) == []


# The methods


class Broken:
    """A method that fails, in one of several ways."""

    cost = 1.0
    sees_partner = True
    about = "fails"

    def __init__(self, name: str, error: Exception | None) -> None:
        self.name, self._error = name, error

    def identity(self) -> Mapping[str, Any]:
        return {}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        if self._error:
            raise self._error
        return Explained.of_maps(torch.full(chip_a.shape[-2:], torch.nan), torch.zeros(chip_b.shape[-2:]))


def broken() -> Sequence[Broken]:
    return [
        Broken("refuses", EngineError("the network has no such layer")),
        Broken("crashes", RuntimeError("shapes\ndiffer")),
        Broken("overflows", None),
    ]


@pytest.fixture
def with_broken() -> Iterator[None]:
    register(broken)
    yield
    unregister(broken)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(recipe_of(Settings()))


@pytest.fixture(scope="module")
def cuts() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    small = random.integers(0, 256, (2, 12, 16, 3), dtype=np.uint8)
    return tuple(np.kron(one, np.ones((10, 10, 1), np.uint8)) for one in small)  # type: ignore[return-value]


METHODS = ("gradient", "grad_cam", "simexpert", "correspondence", "centre", "eigen_cam")


@pytest.fixture(scope="module")
def compared(engine: Engine, cuts: tuple[np.ndarray, np.ndarray]) -> ComparedPair:
    return Comparer(engine, METHODS, 4).compare(cuts, ("left", "right"))


def test_each_method_is_what_it_is_alone(engine: Engine, cuts: Any, compared: ComparedPair) -> None:
    assert [one.method.name for one in compared.methods] == list(METHODS)
    for one in compared.methods:
        alone = engine.explain(cuts, method=one.method.name, n_pixel_maps=4)
        assert one.explained is not None
        assert np.array_equal(one.explained.shown.heat[0], alone.shown.heat[0])
        assert one.seconds > 0
    assert compared.cosine == pytest.approx(alone.cosine, abs=1e-6)
    assert compared.line.startswith(f"cosine {compared.cosine:.3f} · 6 methods")


def test_what_a_reader_must_know_stands_in_the_panel(compared: ComparedPair) -> None:
    remarks = {one.method.name: one.remarks for one in compared.methods}
    assert remarks["centre"] == remarks["eigen_cam"] == ("does not see the partner",)
    assert remarks["simexpert"] == ()
    found = {one.method.name: one.panel() for one in compared.methods}
    assert 0 < len(found["correspondence"].relevance) <= 4
    assert len(found["grad_cam"].relevance) == 0
    assert found["grad_cam"].about == explanations()["grad_cam"].about


def test_likeness_is_the_mean_rank_correlation_of_both_photos_maps(compared: ComparedPair) -> None:
    likeness = compared.likeness
    assert (np.diag(likeness) > 1 - 1e-12).all()
    assert (likeness == likeness.T).all()
    for i, j in ((0, 1), (2, 3), (4, 5)):
        one, other = compared.methods[i].maps, compared.methods[j].maps
        assert one is not None
        assert other is not None
        assert one[0].shape == (160, 160)
        pairs = [tuple(map(torch.from_numpy, both)) for both in zip(one, other, strict=True)]
        assert likeness[i, j] == pytest.approx(np.mean([rank_correlation(*both) for both in pairs]))
    best = compared.most_alike(2)
    assert best is not None
    row = np.delete(likeness[2], 2)
    assert best == (np.delete(np.array(METHODS), 2)[row.argmax()], row.max())


def test_one_that_fails_does_not_stop_the_others(engine: Engine, cuts: Any, with_broken: None) -> None:
    told = []
    comparer = Comparer(engine, ("refuses", "gradient", "crashes", "overflows"), 2, told=told.append)
    found = comparer.compare(cuts)
    assert told == list(found.methods)
    reasons = {one.method.name: one.reason for one in found.methods}
    assert reasons == {
        "refuses": "the network has no such layer",
        "gradient": "",
        "crashes": "RuntimeError: shapes differ",
        "overflows": "its maps hold NaN or infinity",
    }
    assert [one is None for one in found.drawn.panels] == [True, False, True, True]
    assert "1 of 4 methods" in found.line
    assert np.isnan(found.likeness[0]).all()
    assert found.most_alike(0) is None
    assert found.most_alike(1) is None


def test_a_map_that_shows_no_place_is_said(engine: Engine, cuts: Any) -> None:
    class Flat(Broken):
        def explain(self, subject: Any, chip_a: Tensor, chip_b: Tensor, state: Any = None) -> Explained:
            return Explained.of_maps(torch.full(chip_a.shape[-2:], 3.0), -chip_b[0].abs())

    def family() -> Sequence[Broken]:
        return [Flat("flat", None)]

    register(family)
    try:
        (found,) = Comparer(engine, ("flat",)).compare(cuts).methods
    finally:
        unregister(family)
    assert found.remarks == ("nothing is above 0 in b", "the same everywhere in a")


def test_the_network_is_left_as_it_was(engine: Engine, compared: ComparedPair) -> None:
    network = engine.model.network
    assert not network.training
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


# Which methods


def test_the_selection_follows_the_preset_and_has_a_control() -> None:
    for preset in ("published", "conserving"):
        found = few(preset)
        assert {f"pairx_{preset}", f"lrp_{preset}", "grad_cam", "random_smooth"} <= {*found}
        assert len(found) < 12
        assert {*found} <= {*explanations()}


def test_methods_are_chosen_by_name_or_all_that_are_affordable() -> None:
    assert chosen_methods("published") == few("published")
    assert chosen_methods("published", ("grad_cam", "centre", "grad_cam")) == ("grad_cam", "centre")
    assert chosen_methods("published", (), True) == usual()
    assert chosen_methods("published", ("score_cam",), True) == (*usual(), "score_cam")
    with pytest.raises(EngineError, match="unknown method 'guess'"):
        chosen_methods("published", ("guess",))


def test_a_comparison_without_methods_is_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match="no method"):
        Comparer(engine, ())
