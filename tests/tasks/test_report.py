from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairx_engine.figure import encode_webp
from tasks.pages.judgement import (
    Estimate,
    ReportBin,
    ReportCandidates,
    ReportJudgement,
    draw_reliability,
)
from tasks.pages.report import (
    MAX_SUSPECTS,
    ReportBalance,
    ReportFailure,
    ReportInput,
    ReportStage,
    ReportSuspect,
    render_report,
)
from tasks.pages.report_cards import Card, card_of
from tasks.pages.scatter import ReportScatter, axis_range, draw_plots
from tasks.pages.tonight import ChangedName, GoneSuspect, NewSuspect, ReportTonight
from tasks.reviews.questions import key_of

VOID = {"meta", "img", "input", "br", "hr", "link"}
CHIPS = encode_webp(np.full((40, 90, 3), 200, dtype=np.uint8))
OVERLAY = encode_webp(np.full((40, 90, 4), 60, dtype=np.uint8))
COLOURS = encode_webp(np.full((40, 90, 3), 20, dtype=np.uint8))
EVIL = "</style></script><script>alert('x')</script><img src=https://evil.example/a.png onerror=\"a\">"


class Page(HTMLParser):
    """Collects what a browser would see and checks that every tag is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, str] = {"style": "", "script": ""}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]] += data
        else:
            self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.tags if name in (a.get("class") or "").split()]


def suspect(rank: int = 1, **changes: Any) -> ReportSuspect:
    values: dict[str, Any] = {
        "rank": rank, "kind": "wrong_name", "score": 0.93, "photo_a": f"p{rank}", "photo_b": "q",
        "identity_a": "Ada", "identity_b": "Bo", "cosine": 0.912, "inverted_residual_mean": 0.08,
        "match_coverage": 0.41, "n_matches": 29, "n_inliers": 57, "reason": "similar and plausible",
        "chips": CHIPS, "overlay": OVERLAY, "colours": COLOURS,
    }  # fmt: skip
    return ReportSuspect(**{**values, **changes})


JUDGEMENT = ReportJudgement(
    names=45, wrong_names=Estimate(29.94, 28.21, 31.42), sensitivity=0.96, animals=Estimate(46.04, 46, 47), undefended=1234,
    calibration_error=0.0557, brier=0.0843, brier_cosine=0.0941,
    bins=[ReportBin(661, 0.02, 0.01), ReportBin(660, 0.97, 0.92)],
    candidates=[ReportCandidates("stranger", [("Cleo", 0.81), (None, 0.15), ("Dodo", 0.02)])], n_unknown=2345,
)  # fmt: skip


def tonight(name: str = "Ada", since: str | None = "r0") -> ReportTonight:
    counts = {"new_photos": 12, "new_pairs": 61, "new_suspects": 70, "gone_suspects": 1, "changed_names": 3}
    new = [NewSuspect(2, 0.31, ["evidence", name]), NewSuspect(900, None, ["evidence"])]
    gone = GoneSuspect("one_name_two_animals", None, name, name, "p", "q", 0.4, "less suspect")
    names = [ChangedName(name, None, name), ChangedName("p", name, None)]
    return ReportTonight(
        counts, since, since and datetime(2026, 11, 20, 23, 5, tzinfo=UTC), 2, 1, new, [gone], names
    )


def question(**changes: Any) -> dict[str, Any]:
    """A row of the view `questions`, as far as a card reads it."""
    values: dict[str, Any] = {
        "rank": 1, "kind": "wrong_name", "asks": "name", "subject": "p1", "other_name": "Ada", "pair_id": "pair", "photo_a": "p1",
        "photo_b": "q", "identity_a": "Ada", "identity_b": "Bo", "blamed_photo": "p1", "photos_a": None, "photos_b": None,
    }  # fmt: skip
    return values | changes


def asked(**changes: Any) -> Card:
    """The card of that row."""
    row = question(**changes)
    return card_of(row, key_of(row))


PICTURE = re.compile(r"pictures/[0-9a-f]{32}\.webp")
NO_PAIRS = ReportScatter(np.zeros(0), np.zeros(0), np.zeros(0), [])


def scatter(n: int = 60) -> ReportScatter:
    random = np.random.default_rng(5)
    residual = random.random(n) + 0.01
    residual[::6] = np.nan
    return ReportScatter(
        random.random(n), residual, random.random(n), list(random.choice(["same", "different", "unknown"], n))
    )


def report(**changes: Any) -> ReportInput:
    start = datetime(2026, 11, 21, 23, 50, tzinfo=UTC)
    values: dict[str, Any] = {
        "title": "cows", "run_id": "20261121T235000-ab12", "started": start,
        "finished": start + timedelta(minutes=20), "counts": {"photos": 1374, "pairs": 4000},
        "balances": [ReportBalance("photos 374 = embedded 368 + failed 6", True)],
        "suspects": [suspect(1), suspect(2, kind="copy")], "n_suspects_total": 2, "scatter": NO_PAIRS,
        "failures": [ReportFailure("ingest", "truncated", 3, [("broken_01", "the picture breaks off")])],
        "timings": [ReportStage("embed", 30.0, 6, 0.9), ReportStage("score", 90.0, 12, 0.5), ReportStage("flag", 1.0, 1)],
        "settings": {"model": "mini", "top_k": 10, "layers": ["blocks.3"]},
        "fingerprints": {"scores": "f00d"}, "versions": {"torch": "2.15"}, "warnings": ["to try, not to trust"], "remarks": ["read: image_id"],
    }  # fmt: skip
    return ReportInput(**{**values, **changes})


def page(**changes: Any) -> Page:
    return Page(render_report(report(**changes)).html)


def test_everything_that_was_given_can_be_read() -> None:
    shown = page()
    for text in (
        "cows", "20261121T235000-ab12", "20 min 00 s", "1,374", "photos 374 = embedded 368 + failed 6",
        "to try, not to trust", "Ada", "Bo", "p1", "similar and plausible", "0.912", "0.0800 / px", "12.5 px", "0.410",
        "29", "57", "truncated", "broken_01", "the picture breaks off", "embed", "1 min 30 s", "90%", "mini",
        '["blocks.3"]', "f00d", "2.15", "it does not decide", "Unpatterned", "Extreme pose", "Background",
        "convincingly",
    ):  # fmt: skip
        assert text in shown.text, text
    assert len(shown.all("li", **{"class": "warning"})) == len(shown.all("li", **{"class": "remark"})) == 1
    # (30 * 0.9 + 90 * 0.5) / 120, over the two stages that were measured.
    assert "60%" in shown.text


def test_the_judgement_of_the_catalogue_can_be_read() -> None:
    shown = page(judgement=JUDGEMENT)
    for text in (
        "29.9", "nine times in ten 28.2 to 31.4", "45", "46.0", "46 to 47", "1,234", "0.056", "0.0843", "0.0941",
        "stranger", "Cleo 0.810", "new animal 0.150", "Dodo 0.020", "The 1 surest of 2,345 photos",
        "2 bins of 660 to 661 pairs",
    ):  # fmt: skip
        assert text in shown.text, text
    assert len(shown.all("img", alt="Stated probability against the share of pairs with one name")) == 1
    assert "Nothing has been judged" in page().text


def test_what_could_not_be_judged_is_left_out_or_a_dash() -> None:
    nothing = ReportJudgement(1, Estimate(0, 0, 0), None, None, 3, None, None, None)
    shown = page(judgement=nothing)
    assert "Animals that bear a name" not in shown.text
    assert "Of names made wrong to try it" not in shown.text
    assert "unknown animals may be" not in shown.text
    assert "No pair to compare" in shown.text
    assert draw_reliability(()) == ""


@pytest.mark.parametrize(
    ("share", "words"), [(0.96, "1 is all of them"), (0.05, "a hint where to look, not a count")]
)
def test_how_much_of_wrong_names_is_told_is_said(share: float, words: str) -> None:
    shown = page(judgement=replace(JUDGEMENT, sensitivity=share))
    assert "Of names made wrong to try it, told" in shown.text
    assert words in shown.text


def test_a_suspect_says_whom_it_blames_and_where_to_stop() -> None:
    told = suspect(blamed_photo="p1", proposed_name="Eve", expected=0.875)
    shown = page(suspects=[told], n_suspects_total=1)
    for text in (
        "photo to look at",
        "name that would fit",
        "Eve",
        "expected share of errors so far",
        "0.875",
    ):
        assert text in shown.text, text
    assert "name that would fit" not in page().text


def test_what_is_new_comes_before_what_there_is() -> None:
    listed = [suspect(1), suspect(2, score=0.87, card=asked()), suspect(3), suspect(900, kind="copy")]
    shown = page(tonight=tonight("names"), suspects=listed, n_suspects_total=1000)
    assert [a.get("id") for a in shown.all("section")][:3] == ["tonight", "all", "suspects"]
    text = " ".join(shown.text.split())
    assert "What is new since run r0 of 2026-11-20 23:05." in text
    assert "12new photos 61new pairs 70new suspects 1gone suspects 3changed names" in text
    assert "Of the new photos 2 show an unknown animal" in text
    assert "1 could not be compared" in text
    assert "new isevidence, names probability before0.310" in text
    assert text.count("probability before") == 1
    assert "Shown are the first 2 of 70." in text
    assert "name names0.400less suspect" in text
    # Each suspect is one card; those that are new come first, wherever they rank.
    assert [a["id"] for a in shown.all("article")] == [f"suspect-{rank}" for rank in (2, 900, 1, 3)]
    assert "without the 2 new ones above" in text
    first = page(tonight=tonight(since=None), suspects=listed, n_suspects_total=4)
    text = " ".join(first.text.split())
    assert "The first finished run of this warehouse: everything is new." in text
    assert "less suspect" in text
    assert [a["id"] for a in first.all("article")] == [f"suspect-{rank}" for rank in (1, 2, 3, 900)]


def test_a_card_asks_in_words_and_each_answer_is_a_row() -> None:
    shown = page(suspects=[suspect(card=asked(subject="p1\u202e=1", blamed_photo="q"))], n_suspects_total=1)
    text = " ".join(shown.text.split())
    assert "Is q, called Bo, rather Ada?" in text
    assert "Same animal Sbecomes Ada" in text
    (card,) = shown.all("article")
    told = json.loads(str(card["data-card"]))
    assert str(card["data-card"]).isascii()
    name = {"kind": "name", "subject": "p1\u202e=1", "other": "Ada", "pair_id": "pair"}
    bad = {"kind": "photo", "other": "", "answer": "bad", "pair_id": ""}
    assert told["rows"] == {
        "same": {**name, "answer": "same"},
        "different": {**name, "answer": "different"},
        "unsure": {**name, "answer": "unsure"},
        "bad-a": {**bad, "subject": "p1"},
        "bad-b": {**bad, "subject": "q"},
    }
    assert told["bad"] == ["bad-b", "bad-a"]
    assert {a["data-choice"] for a in shown.all("button") if "data-choice" in a} == told["rows"].keys()
    # The same question of another run is answered by the same answer, another question is not.
    again = page(
        suspects=[suspect(9, card=asked(rank=9, subject="p1\u202e=1", blamed_photo="q"))],
        n_suspects_total=1,
    )
    other = page(suspects=[suspect(card=asked())], n_suspects_total=1)
    ids = [json.loads(str(each.all("article")[0]["data-card"]))["id"] for each in (shown, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_a_suspect_that_asks_nothing_has_no_buttons() -> None:
    shown = page(suspects=[suspect()], n_suspects_total=1)
    assert [a for a in shown.all("button") if "data-choice" in a] == []
    assert "data-card" not in shown.all("article")[0]


def test_nothing_external_is_referenced() -> None:
    html = render_report(report(scatter=scatter(), judgement=JUDGEMENT)).html
    shown = Page(html)
    for _, attributes in shown.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:image/", "#")) or PICTURE.fullmatch(target), (
                target
            )
    assert not shown.all("link")
    assert "@import" not in shown.raw["style"]
    assert "url(" not in shown.raw["style"]
    outside = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", html)
    assert "http://" not in outside
    assert "https://" not in outside
    assert "://" not in shown.raw["script"]


def test_the_policy_allows_this_script_and_no_other() -> None:
    shown = page()
    (policy,) = [a["content"] for a in shown.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(shown.raw["script"].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src 'self' file: data:;")


@pytest.mark.parametrize(
    "changes",
    [
        {"title": EVIL},
        {"run_id": EVIL},
        {"warnings": [EVIL], "remarks": [EVIL]},
        {"balances": [ReportBalance(EVIL, False)]},
        {"counts": {EVIL: 3}},
        {"suspects": [suspect(kind=EVIL)], "n_suspects_total": 1},
        {"suspects": [suspect(photo_a=EVIL, identity_a=EVIL, reason=EVIL)], "n_suspects_total": 1},
        {"suspects": [suspect(identity_b=EVIL, chips=None, colours=None)], "n_suspects_total": 1},
        {"suspects": [suspect(blamed_photo=EVIL, proposed_name=EVIL)], "n_suspects_total": 1},
        {
            "suspects": [
                suspect(
                    card=asked(
                        **dict.fromkeys(("subject", "photo_a", "identity_a", "other_name", "pair_id"), EVIL)
                    )
                )
            ],
            "n_suspects_total": 1,
        },
        {
            "suspects": [suspect(card=asked(asks="names", identity_a=EVIL, subject=EVIL))],
            "n_suspects_total": 1,
        },
        {"warehouse": EVIL, "warnings": [EVIL], "remarks": [EVIL]},
        {
            "judgement": replace(
                JUDGEMENT, bins=(), candidates=[ReportCandidates(EVIL, [(EVIL, 0.5), (None, 0.5)])]
            )
        },
        {"failures": [ReportFailure(EVIL, EVIL, 1, [(EVIL, EVIL)])]},
        {"timings": [ReportStage(EVIL, 1.0, 1)]},
        {"settings": {EVIL: EVIL, "nested": {"path": [EVIL]}}},
        {"fingerprints": {EVIL: EVIL}, "versions": {EVIL: EVIL}},
        {"tonight": tonight(EVIL, EVIL)},
    ],
)
def test_strings_of_the_catalogue_stay_text(changes: dict[str, Any]) -> None:
    plain, attacked = page(), page(**changes)
    assert "alert(" in attacked.text or attacked.all("article", **{"data-kind": EVIL})
    assert attacked.raw == plain.raw
    assert len(attacked.all("script")) == 1
    assert not [a for _, a in attacked.tags if "onerror" in a]


def test_pictures_lie_beside_the_page_and_the_overlay_lies_above_its_chips() -> None:
    rendered = render_report(report(suspects=[suspect(), suspect(2)], n_suspects_total=2))
    html = rendered.html
    pictures = Page(html).all("img", loading="lazy")[:3]
    assert [rendered.pictures[str(a["src"]).removeprefix("pictures/")] for a in pictures] == [
        CHIPS,
        OVERLAY,
        COLOURS,
    ]
    assert len(rendered.pictures) == 3
    assert all((a["width"], a["height"], a["loading"]) == ("90", "40", "lazy") for a in pictures)
    assert re.search(r'<div class="stack"><img [^>]*>\s*<img class="overlay"', html)
    assert re.search(r"\.stack \.overlay \{[^}]*position: absolute; inset: 0", html)


def test_the_page_does_not_grow_with_its_pictures() -> None:
    """Of two hundred suspects with figures of a megabyte the page itself says no more than where they lie."""
    noise = np.random.default_rng(3)

    def drawn(rank: int) -> ReportSuspect:
        chips = encode_webp(noise.integers(0, 255, (64, 128, 3), dtype=np.uint8))
        return suspect(rank, chips=chips, overlay=None, colours=None)

    many = [drawn(rank) for rank in range(1, 201)]
    bare = [replace(each, chips=None) for each in many]
    with_pictures, without = (render_report(report(suspects=s, n_suspects_total=200)) for s in (many, bare))
    assert len(with_pictures.pictures) == 200
    assert sum(map(len, with_pictures.pictures.values())) > 1_000_000
    assert len(with_pictures.html) - len(without.html) < 200 * 400
    assert "base64" not in with_pictures.html


def test_each_overlay_has_a_switch_and_all_have_one() -> None:
    shown = page()
    assert len(shown.with_class("overlay-switch")) == 2
    assert len(shown.all("input", id="all-overlays")) == 1
    assert {a["value"] for a in shown.with_class("kind-filter")} == {"wrong_name", "copy"}
    assert {a["data-kind"] for a in shown.all("article")} == {"wrong_name", "copy"}


@pytest.mark.parametrize(
    ("missing", "pictures"),
    [({"chips": None, "overlay": None, "colours": None}, 0), ({"overlay": None}, 2), ({"colours": None}, 2)],
)
def test_missing_pictures_are_allowed(missing: dict[str, None], pictures: int) -> None:
    shown = page(suspects=[suspect(**missing)], n_suspects_total=1)
    assert len([a for a in shown.all("img") if PICTURE.fullmatch(str(a["src"]))]) == pictures
    assert ("No picture was drawn" in shown.text) == (pictures == 0)


def test_bytes_that_are_no_picture_name_the_pair() -> None:
    with pytest.raises(ValueError, match="p1 / q"):
        render_report(report(suspects=[suspect(chips=b"<svg onload=1>")], n_suspects_total=1))


def test_missing_scores_and_names_are_shown_as_missing() -> None:
    bare = suspect(
        identity_a=None,
        inverted_residual_mean=None,
        match_coverage=float("nan"),
        n_inliers=None,
        kind="new_kind",
    )
    shown = page(suspects=[bare], n_suspects_total=1)
    assert "unknown" in shown.text
    assert "no homography" in shown.text
    assert "mean residual" not in shown.text.replace("inverted residual mean", "")
    assert "new kind" in shown.text
    assert "nan" not in shown.text.lower().split()


def test_long_lists_are_cut_with_a_sentence() -> None:
    many = [suspect(i + 1, chips=None, overlay=None, colours=None) for i in range(MAX_SUSPECTS + 5)]
    shown = page(suspects=many, n_suspects_total=3210)
    assert len(shown.all("article")) == MAX_SUSPECTS
    assert f"Shown are the first {MAX_SUSPECTS} of 3,210 suspects" in shown.text
    assert "Shown are the first" not in page().text


def test_a_balance_that_fails_is_marked() -> None:
    shown = page(balances=[ReportBalance("4 = 4", True), ReportBalance("5 = 4", False)])
    assert [a["class"] for a in shown.all("li") if a.get("class") in ("good", "bad")] == ["good", "bad"]
    assert "5 = 4 (does not add up)" in shown.text


def test_an_empty_run_is_a_report_too() -> None:
    shown = page(
        suspects=[], n_suspects_total=0, failures=[], timings=[], settings={}, warnings=[], counts={}, balances=[],
        scatter=NO_PAIRS,
    )  # fmt: skip
    assert "No name is suspect" in shown.text
    assert "Nothing failed." in shown.text
    assert shown.text.count("No pair to draw") == 2


def test_plots_say_how_many_pairs_they_leave_out() -> None:
    residual, coverage = draw_plots(scatter(60))
    assert residual["caption"] == "10 of 60 scored pairs have no homography and are not drawn."
    assert coverage["caption"] == "All 60 scored pairs."
    svg = base64.b64decode(residual["uri"].split(",")[1])
    assert b"<svg" in svg
    assert b"<image" in svg


@pytest.mark.parametrize("relation", ["same", "different", "unknown"])
def test_one_pair_of_one_class_can_be_drawn(relation: str) -> None:
    single = ReportScatter(np.array([0.5]), np.array([0.1]), np.array([0.0]), [relation])
    assert all(plot["uri"].startswith("data:image/svg+xml;base64,") for plot in draw_plots(single))


def test_infinite_and_zero_residual_scores_are_left_out_of_a_logarithmic_axis() -> None:
    odd = ReportScatter(np.full(3, 0.5), np.array([np.inf, 0.0, 0.1]), np.ones(3), ["same"] * 3)
    assert draw_plots(odd)[0]["caption"].startswith("2 of 3")


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        ReportScatter(np.zeros(2), np.zeros(3), np.zeros(3), ["same"] * 3)
    with pytest.raises(ValueError, match="relation must be"):
        ReportScatter(np.zeros(1), np.zeros(1), np.zeros(1), ["wrong"])
    with pytest.raises(ValueError, match="n_suspects_total"):
        report(n_suspects_total=1)
    with pytest.raises(ValueError, match="before it started"):
        replace(report(), finished=datetime(2020, 1, 1, tzinfo=UTC))


@pytest.mark.slow
def test_matplotlib_is_imported_only_to_draw_and_without_pyplot() -> None:
    code = (
        "import sys, numpy as np\n"
        "from tasks.pages.scatter import ReportScatter, axis_range, draw_plots\n"
        "import tasks.pages.report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "draw_plots(ReportScatter(np.array([0.5]), np.array([0.1]), np.array([0.2]), ['same']))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def spread(*others: float) -> np.ndarray:
    """A hundred scores between 0.01 and 0.1, and others."""
    return np.concatenate([np.geomspace(0.01, 0.1, 100), others])


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (spread(), (0.01, 0.1)),
        # Exact copies have the inverse of the least residual that counts.
        (spread(1e6, 1e6, 1e6), (0.01, 0.1)),
        (spread(1e-9), (0.01, 0.1)),
        (spread(1e-9, 1e6), (0.01, 0.1)),
        # Quartiles 0.0178 and 0.0562 are a factor of 3.16 apart: the fences lie at 5.6e-4 and 1.8.
        (spread(1.7), (0.01, 1.7)),
        (spread(1.9), (0.01, 0.1)),
        (spread(6e-4), (6e-4, 0.1)),
        (spread(*[1e6] * 5), (0.01, 0.1)),
        # More than a twentieth are no exception.
        (spread(*[1e6] * 6), (0.01, 1e6)),
        (np.array([0.02, 0.02, 0.02, 5.0]), (0.02, 5.0)),
        (np.array([0.5]), (0.5, 0.5)),
    ],
)
def test_a_few_outliers_do_not_stretch_the_axis(values: np.ndarray, wanted: tuple[float, float]) -> None:
    assert axis_range(values, True) == pytest.approx(wanted)


def test_outliers_stand_on_the_edge_and_the_caption_says_so() -> None:
    def plot(*others: float) -> tuple[str, str]:
        scores = spread(*others)
        n = len(scores)
        given = ReportScatter(np.linspace(0, 1, n), scores, np.full(n, 0.5), ["same"] * n)
        residual, coverage = draw_plots(given)
        assert "edge" not in coverage["caption"]
        svg = base64.b64decode(residual["uri"].partition(",")[2]).decode("utf-8")
        return residual["caption"], svg

    plain, with_copies = plot(), plot(1e6, 1e6)
    assert "edge" not in plain[0]
    assert "2 pairs lie beyond the upper edge, as far as 1e+06" in with_copies[0]
    # Nothing of the axis goes up to a million, so that it is the same as without the two.
    ticks = [
        set(re.findall(r"<!-- \$\\mathdefault\{10\^\{(.*?)\}\}\$ -->", svg))
        for _, svg in (plain, with_copies)
    ]
    assert ticks[0] == ticks[1] != set()
    assert "1 pair lies beyond the lower edge, as far as 1e-09" in plot(1e-9)[0]
