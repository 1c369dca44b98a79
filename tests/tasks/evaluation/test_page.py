"""The page of an evaluation: everything given can be read there, nothing given can do anything there."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pairx_engine.evaluation.bootstrap import Interval
from tasks.pages.evaluation import MAX_OUTLIERS, headline, render_evaluation, z_in_words
from tasks.pages.evaluation_values import ALL_SCORES, OWN_SCORES, SCORES
from tasks.pages.paper_table import PAPER_DIFFERS
from tasks.pages.scatter import ReportScatter
from tests.tasks.evaluation.drawn_evaluation import (
    DEFAULT_FORM,
    NO_PAIRS,
    OTHER_FORM,
    candidate,
    choice,
    empty_evaluation,
    evaluation,
    faithfulness,
    outlier,
    scatter,
    statistic,
    statistics,
    webp,
)

VOID = {"meta", "img", "input", "br", "hr", "link"}
EVIL = "</style></script><script>alert('x')</script><img src=https://evil.example/a.png onerror=\"a\">\" onload='b'"
SECTIONS = ["table", "plots", "delta", "auc", "missing", "outliers", "choice", "faithfulness", "settings"]


class Page(HTMLParser):
    """Collects what a browser would see, by section, and checks that every tag is closed in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.style, self.sections, self.rows = [], "", "", {}, []
        self._open, self._section = [], ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "section":
            self._section = attributes.get("id", "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "style":
            self.style += data
            return
        self.text += data
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def all(self, tag, **wanted):
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]

    def row(self, *start):
        """The first table row whose cells begin with these texts, without blanks around them."""
        rows = [[cell.strip() for cell in row] for row in self.rows]
        return next(row for row in rows if [c.split("  ")[0] for c in row[: len(start)]] == list(start))


def page(**changes):
    """Without plots unless they are asked for: drawing takes longer than all the rest."""
    return Page(render_evaluation(evaluation(**{"scatter": NO_PAIRS, **changes})))


def shown(value, digits=3):
    return f"{value:.{digits}f}".replace("-", "−")


def test_everything_that_was_given_can_be_read():
    found = page()
    for text in (
        "Evaluation of herd", "2026-11-21 15:40 UTC", "blocks.3", "1,200 resamples", "1,555", "45", "few animals",
        "the 3 nearest of its name", "LionData", DEFAULT_FORM, OTHER_FORM, "Ada", "Bo", "a1", "b2", "pair1", "0.912",
        "0.0817 / px", "0.414", "57", "the best is better on all animals", "0.769", "0.738", "5 folds",
        "0.013 to 0.062", "198 of 200", "0.38", "pairx_published", "random", "embedded", '["blocks.3"]',
    ):  # fmt: skip
        assert text in found.text, text


def test_every_statistic_of_all_pairs_is_shown_with_its_interval():
    rows = statistics(3)
    found = page(statistics=rows)
    for row in rows:
        cell = f"{shown(row.value)} [{shown(row.low)}, {shown(row.high)}]"
        place = {"spearman": "table", "delta": "delta"}.get(row.statistic, "auc")
        assert cell in found.sections[place], (row.score, row.statistic)


def test_the_table_across_datasets_puts_each_number_under_its_heading():
    own, other = statistics(3), statistics(4, dataset="far herd")
    found = page(statistics=own, beside=other)
    for rows, name in ((own, "herd this evaluation"), (other, "far herd")):
        row = found.row(name)
        expected = [
            next(
                r for r in rows if (r.score, r.statistic) == (score, kind) and r.variant in ("", DEFAULT_FORM)
            )
            for score in ALL_SCORES
            for kind in ("spearman", "delta")
        ]
        assert row[1:3] == ["40", "60"]
        assert [cell.split()[0] for cell in row[3:]] == [shown(r.value) for r in expected]


def test_delta_of_another_default_form_is_not_shown_as_if_it_were_the_same():
    found = page(beside=[statistic("delta", dataset="far herd", variant="another form", value=0.123)])
    assert "0.123" not in found.text
    assert found.row("far herd")[3:] == ["–"] * 2 * len(ALL_SCORES)


@pytest.mark.parametrize("name", ["OpenCows2020", "open cows 2020"])
def test_the_papers_values_stand_beside_a_dataset_of_its_table(name):
    found = page(dataset=name, statistics=statistics(dataset=name), beside=[])
    assert found.row("the paper, OpenCows2020")[3:] == [
        "0.78",
        "0.31",
        "0.80",
        "0.27",
        *["–"] * 2 * len(OWN_SCORES),
    ]
    assert PAPER_DIFFERS in found.text


def test_the_papers_values_stand_beside_no_species_and_no_other_dataset():
    rows = [
        *statistics(dataset="LionData"),
        *statistics(dataset="LionData", species="Panthera leo", n_correct=30),
    ]
    assert page(statistics=rows, beside=[]).text.count("the paper, ") == 1
    assert "the paper, " not in page(beside=[]).text
    assert "MiewID" not in page(beside=[]).text


def test_species_have_rows_of_their_own_unless_one_is_all_there_is():
    several = [
        *statistics(1),
        *statistics(2, species="zebra", n_correct=10),
        *statistics(3, species="giraffe", n_correct=30),
    ]
    found = page(statistics=several)
    assert {"zebra", "giraffe"} <= {row[0].strip() for row in found.rows}
    alone = page(statistics=[*statistics(1), *statistics(2, species="zebra")])
    assert "zebra" not in alone.text


def test_two_evaluations_of_one_dataset_stay_apart():
    found = page(beside=[*statistics(5, dataset="far herd"), *statistics(6, dataset="far herd")])
    assert len([row for row in found.rows if row[0].strip() == "far herd"]) == 2


def test_all_forms_of_delta_stand_in_rows_and_the_default_is_marked():
    found = page()
    assert found.row(f"{DEFAULT_FORM} default")
    assert found.row(OTHER_FORM)
    assert len([a for a in found.all("tr") if a.get("class") == "marked"]) == 1 + 2  # and two candidates


def test_what_lies_where_on_a_scale():
    rows = [
        statistic("delta", score, variant=DEFAULT_FORM, value=v, low=v - 0.1, high=v + 0.1)
        for score, v in zip(SCORES, (-0.4, 0.9), strict=True)
    ]
    dots = [float(a["style"][5:-1]) for a in page(statistics=rows, beside=[]).all("i", **{"class": "dot"})]
    # The scale runs from -0.5 to 1 with a margin of 3 % at both ends.
    assert dots == pytest.approx([(0.1 + 0.045) / 1.59 * 100, (1.4 + 0.045) / 1.59 * 100], abs=0.01)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_numbers_that_are_undefined_are_dashes(missing):
    rows = [statistic("delta", variant=DEFAULT_FORM, value=missing, low=missing, high=missing)]
    found = page(
        statistics=rows, beside=[], choice=choice(difference=Interval(float("nan"), float("nan"), 9, 0))
    )
    assert "nan" not in found.text.lower().split()
    assert "None" not in found.text
    assert found.row("herd")[-1] == "–"
    assert "not defined" in found.sections["choice"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [(SCORES[0], 0.71, 0.66, 0.75), (SCORES[1], 0.78, 0.74, 0.82)],
            "Match coverage tells correct from incorrect pairs at equal cosine in 78 % of comparisons "
            "(95 % interval 74–82). For the inverted residual mean it is 71 % (66–75).",
        ),
        (
            [(SCORES[0], 0.54, 0.49, 0.58), (SCORES[1], 0.4, 0.35, 0.45)],
            "Inverted residual mean tells correct from incorrect pairs at equal cosine in 54 % of comparisons "
            "(95 % interval 49–58), which may be chance. For the match coverage it is 40 % (35–45), which is worse than "
            "chance.",
        ),
        (
            [(SCORES[1], 0.6, None, float("nan"))],
            "Match coverage tells correct from incorrect pairs at equal cosine in 60 % of comparisons.",
        ),
        (
            [(SCORES[1], None, None, None), (SCORES[0], float("nan"), None, None), ("cosine", 0.9, 0.8, 1.0)],
            "There are too few correct and incorrect pairs of like cosine to say what the scores add to it.",
        ),
    ],
)
def test_the_headline_says_the_finding_in_words(rows, words):
    given = [
        statistic("auc_equal_cosine", score, value=v, low=low, high=high) for score, v, low, high in rows
    ]
    assert headline(evaluation(statistics=given)) == words
    assert words in page(statistics=given).text


def test_the_headline_is_of_all_pairs_and_of_the_default_form():
    whole = statistic("auc_equal_cosine", value=0.71, variant=DEFAULT_FORM)
    species = statistic("auc_equal_cosine", value=0.92, species="zebra")
    other_form = statistic("auc_equal_cosine", value=0.93, variant=OTHER_FORM)
    found = headline(evaluation(statistics=[species, other_form, whole]))
    assert found.endswith("in 71 % of comparisons.")


def test_a_third_score_is_shown_as_a_baseline_and_never_headlined():
    rows = [*statistics(1), statistic("auc_equal_cosine", "cosine", value=0.999)]
    found = page(statistics=rows, beside=[])
    assert "The cosine itself" in found.text
    assert "0.999" in found.sections["auc"]
    assert "100 %" not in headline(evaluation(statistics=rows))


@pytest.mark.parametrize(
    ("z", "correct", "words"),
    [
        (4.26, False, "clearly higher than in incorrect pairs of like cosine, by 4.3 robust"),
        (4.26, True, "clearly lower than in correct pairs of like cosine, by 4.3 robust"),
        (-2.5, False, "somewhat lower than in incorrect pairs of like cosine, by 2.5 robust"),
        (-0.2, True, "hardly higher than in correct pairs of like cosine, by 0.2 robust"),
        (1.0, True, "a little lower"),
        (float("inf"), False, "far higher"),
    ],
)
def test_z_is_put_in_words_by_sign_and_class(z, correct, words):
    assert z_in_words(z, correct, "match_coverage").startswith(f"Match coverage: {words}")


def test_missing_scores_are_counted_by_class():
    residual = np.array([0.1, np.nan, np.nan, 0.2, np.nan])
    given = ReportScatter(
        np.full(5, 0.5), residual, np.full(5, 0.3), ["same", "same", "different", "different", "different"]
    )
    rows = [
        statistic("auc", score, n_correct=2, n_incorrect=3, n_missing=n)
        for score, n in zip(SCORES, (3, 0), strict=True)
    ]
    found = page(scatter=given, statistics=rows, beside=[])
    assert found.row("herd", "5")[1:] == ["5", "3 60.0 %", "0 0.0 %"]
    assert found.row("correct pairs")[1:] == ["2", "1 50.0 %", "0 0.0 %"]
    assert found.row("incorrect pairs")[1:] == ["3", "2 66.7 %", "0 0.0 %"]


def test_figures_are_embedded_with_size_and_words():
    pictures = [a for a in page().all("img") if a["src"].startswith("data:image/webp")]
    assert [base64.b64decode(a["src"].split(",")[1]) for a in pictures] == [webp(), webp(31)]
    assert [(a["width"], a["height"], a["loading"]) for a in pictures] == [
        ("30", "20", "lazy"),
        ("31", "20", "lazy"),
    ]
    assert pictures[0]["alt"] == "Explanation of the incorrect pair of a1 (Ada) and b1 (Bo)"
    assert all(a.get("alt") for a in page(scatter=scatter()).all("img"))


def test_a_missing_figure_is_said_and_one_that_is_no_png_names_the_pair():
    assert page(figures={"pair2": webp()}).text.count("No figure was drawn") == 1
    for wrong in (b"", b"<svg onload=1>", b"RIFF0000WEBP"):
        with pytest.raises(ValueError, match="a1 / b1"):
            page(figures={"pair1": wrong})


def test_outliers_without_scores_say_so():
    bare = outlier(
        inverted_residual_mean=None, z_inverted_residual_mean=None, z_match_coverage=None, n_inliers=None
    )
    found = page(outliers=[bare], figures={}).sections["outliers"]
    assert "no homography" in found
    assert "robust standard deviations." not in found
    assert "None" not in found


def test_long_lists_of_outliers_are_cut_with_a_sentence():
    many = [outlier(rank) for rank in range(1, MAX_OUTLIERS + 6)]
    found = page(outliers=many, figures={})
    assert len(found.all("article")) == MAX_OUTLIERS
    assert f"Shown are the first {MAX_OUTLIERS} of {MAX_OUTLIERS + 5}" in found.text
    assert "Shown are the first" not in page().text


def test_candidates_come_in_their_order_with_marks():
    found = page()
    rows = [[cell.strip() for cell in row] for row in found.rows if row and row[0] in ("1", "2", "3")]
    assert [row[1] for row in rows] == ["blocks.4", "blocks.3", "blocks.2"]
    assert [row[3] for row in rows] == ["chosen", "default", ""]
    assert rows[0][4:] == ["0.783", "0.766", "−0.130", "0.800", "0.212", "0.38"]
    assert "matcher sift, homography magsac" in found.sections["choice"]


def test_a_default_that_is_kept_is_both():
    kept = candidate(criterion=0.741)
    found = page(choice=choice(chosen=kept))
    assert [row[3].strip() for row in found.rows if row and row[0] == "2"] == ["chosen default"]


def test_faithfulness_has_mean_and_interval_of_every_map_measure_and_class():
    rows = faithfulness()
    found = page(faithfulness=rows)
    for row in rows:
        assert f"{shown(row.mean)} [{shown(row.low)}, {shown(row.high)}]" in found.sections["faithfulness"]
    for kind in ("Ranking", "Pixel flipping", "Checks", "Continuity"):
        assert f"{kind}, similar pairs · 20 pairs" in found.text
        assert f"{kind}, dissimilar pairs · 20 pairs" in found.text
    assert "area, most relevant first, blur in squares of 9" in found.text
    bare = [replace(row, low=None, high=None) for row in rows]
    assert "[" not in page(faithfulness=bare).sections["faithfulness"]


@pytest.mark.parametrize(
    ("section", "given"),
    [
        ("table", {"beside": statistics(1, dataset="other")}),
        ("plots", {"scatter": scatter()}),
        ("delta", {"statistics": [statistic("delta", variant=DEFAULT_FORM)]}),
        ("auc", {"statistics": [statistic("auc")]}),
        ("missing", {"statistics": [statistic("spearman")]}),
        ("outliers", {"outliers": [outlier()]}),
        ("choice", {"choice": choice()}),
        ("faithfulness", {"faithfulness": faithfulness()}),
        ("settings", {"settings": {"model": "mini"}}),
    ],
)
def test_each_section_is_there_with_its_data_and_away_without(section, given):
    def ids(found):
        return [a["id"] for a in found.all("section") if "id" in a]

    def linked(found):
        return [a["href"][1:] for a in found.all("a")]

    nothing, everything = Page(render_evaluation(empty_evaluation())), page(scatter=scatter())
    assert ids(nothing) == linked(nothing) == []
    assert ids(everything) == linked(everything) == SECTIONS
    alone = Page(render_evaluation(empty_evaluation(**given)))
    assert section in ids(alone)
    assert ids(alone) == linked(alone)
    assert "How to read this." in alone.sections[section]


def test_notes_are_left_out_where_there_are_none():
    assert not page(notes=[]).all("ul")
    assert len(page(notes=["one", "two"]).all("li")) == 2


def test_nothing_external_is_referenced_and_nothing_runs():
    html = render_evaluation(evaluation())
    found = Page(html)
    for _, attributes in found.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:image/", "#")), target
        assert not [name for name in attributes if name.startswith("on")]
    assert not found.all("link")
    assert not found.all("script")
    assert "@import" not in found.style
    assert "url(" not in found.style
    outside = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", html)
    assert "http://" not in outside
    assert "https://" not in outside
    (policy,) = [a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
    assert "script" not in policy


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": EVIL, "statistics": statistics(dataset=EVIL)},
        {"layer": EVIL},
        {"default_variant": EVIL, "statistics": statistics(variant=EVIL)},
        {"statistics": [statistic("delta", EVIL, variant=DEFAULT_FORM)]},
        {"statistics": [*statistics(), *statistics(2, species=EVIL, n_correct=1)]},
        {"statistics": [statistic("auc", variant=EVIL)]},
        {"beside": statistics(dataset=EVIL)},
        {"outliers": [outlier(photo_a=EVIL, photo_b=EVIL, identity_a=EVIL, identity_b=EVIL, pair_id=EVIL)]},
        {"outliers": [outlier(photo_a=EVIL, photo_b=EVIL, identity_a=EVIL, identity_b=EVIL)], "figures": {"pair1": webp()}},
        {"choice": choice(reason=EVIL)},
        {"choice": choice(candidates=(candidate(EVIL), candidate(), candidate(preset=EVIL)))},
        {"choice": choice(candidates=(candidate(**{EVIL: EVIL}),))},
        {"faithfulness": [*faithfulness(), *[type(r)(EVIL, EVIL, r.similar, 0.1, 0.1, 0.2, 3) for r in faithfulness()]]},
        {"notes": [EVIL]},
        {"settings": {EVIL: EVIL, "nested": {"path": [EVIL]}}},
    ],
)  # fmt: skip
def test_strings_of_others_stay_text(changes):
    html = render_evaluation(evaluation(**{"scatter": NO_PAIRS, **changes}))
    plain, attacked = page(), Page(html)
    assert "alert(" in attacked.text
    assert attacked.style == plain.style
    assert not attacked.all("script")
    assert "<script" not in html
    known = {name for _, attributes in plain.tags for name in attributes}
    assert {name for _, attributes in attacked.tags for name in attributes} <= known
    assert all(a["src"].startswith("data:image/") for a in attacked.all("img"))


def test_an_empty_evaluation_is_a_page_too():
    found = Page(render_evaluation(empty_evaluation(resamples=0)))
    assert "too few correct and incorrect pairs" in found.text
    assert "no intervals" in found.text
    assert not found.all("table")


def test_tables_can_be_read_aloud():
    found = page()
    assert all(a.get("scope") for a in found.all("th"))
    assert all(a.get("aria-label") for a in found.all("div", role="region"))
    assert len(found.all("html", lang="en")) == len(found.all("h1")) == 1
