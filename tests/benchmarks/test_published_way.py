"""The yardstick computes what the product does, and its comparison tells right numbers from wrong."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from pairx_engine.models import load_model
from pairx_engine.pair.explain import explain_pair
from tests.benchmarks.agreement import compare, rank_correlation, relative_error, top_overlap
from tests.benchmarks.cases import prepare
from tests.benchmarks.published_way import PublishedWay, Scored
from tests.benchmarks.side import ENGINE, PUBLISHED, Measured
from tests.benchmarks.table import Row, as_json, as_markdown, as_text, verdicts


@pytest.fixture(scope="module")
def chips():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    return [chip.repeat(8, axis=0).repeat(8, axis=1) for chip in coarse]


def test_the_published_way_equals_the_product(chips):
    model = load_model("embedded")
    found = explain_pair(model, *chips, n_pixel_maps=2)
    way = PublishedWay(load_model("embedded").network, model.layer)
    explained = way.explain(*model.normalise(chips), n_maps=2)
    scored = explained.scored
    np.testing.assert_array_equal(scored.cell_a, found.finding.sides[0].cells)
    np.testing.assert_array_equal(scored.cell_b, found.finding.sides[1].cells)
    for ours, theirs in [
        (found.finding.sides[0].grid, scored.grid_a),
        (found.finding.sides[1].grid, scored.grid_b),
        (found.finding.relevance, scored.relevance),
        (found.photos[0].pixels, explained.maps_a),
        (found.photos[1].pixels, explained.maps_b),
    ]:
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < 1e-5


def test_the_published_way_differentiates_parameters_and_leaves_no_hook(chips):
    model = load_model("embedded")
    seen = []
    handle = next(model.network.parameters()).requires_grad_().register_hook(seen.append)
    way = PublishedWay(model.network, model.layer)
    way.score(list(model.normalise(chips)), [(0, 1)])
    handle.remove()
    # The plain backward pass of both photos together, then one under the rules for each of them.
    assert len(seen) == 3
    assert all(p.requires_grad and p.grad is None for p in model.network.parameters())
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.network.modules()
    )


@pytest.fixture
def scored():
    rng = np.random.default_rng(1)
    order = rng.permutation(64)[:40]
    cells = np.stack([order % 8, order // 8], axis=1)
    grid = rng.random((8, 8), dtype=np.float32)
    return Scored(grid, grid, cells, cells[:, ::-1], np.sort(rng.random(40))[::-1], 0.5)


def test_agreement_is_exact_only_for_the_same_numbers(scored):
    maps = np.ones((2, 3, 4, 4), np.float32)
    same = compare({(0, 1): scored}, {(0, 1): scored}, maps, maps)
    assert same.exact()
    assert (same.pairs, same.relevance_error, same.same_matches, same.top) == (1, 0, 1, (1, 1))
    other_grid = replace(scored, grid_b=scored.grid_b + np.float32(0.01))
    other_cells = replace(scored, cell_b=scored.cell_a)
    for wrong in (other_grid, other_cells):
        assert not compare({(0, 1): wrong}, {(0, 1): scored}).exact()
    assert not compare({(0, 1): scored}, {(0, 1): scored}, 1.01 * maps, maps).exact()
    assert not compare({(0, 1): scored}, {(0, 1): scored}, np.nan * maps, maps).exact()
    with pytest.raises(ValueError, match="no pair in common"):
        compare({(0, 2): scored}, {(0, 1): scored})


def test_rank_correlation_and_overlap_follow_the_cells_not_the_positions(scored):
    rng = np.random.default_rng(2)
    noisy = np.round(scored.relevance + rng.normal(0, 0.2, 40), 1)
    order = np.argsort(-noisy, kind="stable")
    other = replace(scored, cell_a=scored.cell_a[order], cell_b=scored.cell_b[order], relevance=noisy[order])
    assert rank_correlation(other, scored) == pytest.approx(spearmanr(noisy, scored.relevance).statistic)
    expected = len(set(order[:20]) & set(range(20))) / 20
    assert 0 < expected < 1
    assert top_overlap(other, scored) == expected
    half = replace(other, cell_a=other.cell_a[:20], cell_b=other.cell_b[:20], relevance=other.relevance[:20])
    assert rank_correlation(half, scored) == pytest.approx(
        spearmanr(noisy[order[:20]], scored.relevance[order[:20]]).statistic
    )


@pytest.mark.parametrize(
    ("task", "precision", "device", "seconds", "ratio", "met"),
    [
        ("full", "float32", "cpu", 5.0, 6.0, [True, True]),
        ("full", "float32", "cpu", 5.0, 5.9, [False, True]),
        ("full", "bfloat16", "cpu", 5.0, 9.9, [False, True]),
        ("score", "float32", "cpu", 5.0, 10.0, [True, True]),
        ("full", "float32", "cuda", 0.05, 49.0, [True, False, True]),
        ("score", "bfloat16", "cuda", 0.011, 50.0, [False, True, True]),
    ],
)
def test_wanted_figures_stand_beside_the_measured_ones(scored, task, precision, device, seconds, ratio, met):
    agreement = compare({(0, 1): scored}, {(0, 1): scored})
    measured = Measured((seconds,), 12.0, 0.2, "fast", {}, {}, None)
    ours = Row("case", task, ENGINE, precision, measured, ratio, agreement)
    theirs = Row("case", task, PUBLISHED, "float32", measured, 1.0, None)
    assert [found for _, found in verdicts(ours, device)] == met
    assert verdicts(theirs, device) == []
    for table in (as_text, as_markdown):
        text = table({"case": "a case"}, [theirs, ours], device)
        assert text.count("MISSED") == met.count(False)
        assert text.count("DISTURBED: others took 20%") == 2
        assert text.count(": met") == met.count(True)
    assert [w["met"] for w in as_json({}, [ours], device)["rows"][0]["wanted"]] == met


def test_without_photos_and_weights_random_ones_are_calibrated(tmp_path):
    title = prepare("mobilenet", tmp_path / "model", tmp_path / "absent", n_photos=3, size=64)
    assert "random weights" in title
    assert "drawn photos" in title
    assert np.load(tmp_path / "model" / "chips.npy").shape == (3, 64, 64, 3)
    model = load_model(tmp_path / "model")
    with torch.no_grad():
        embeddings = model.network(model.normalise(list(np.load(tmp_path / "model" / "chips.npy"))))
    # Uncalibrated, all photos give practically the same embedding.
    assert torch.nn.functional.cosine_similarity(embeddings[0], embeddings[2], dim=0) < 0.99


@pytest.mark.slow
def test_the_command_line_measures_compares_and_reports(tmp_path):
    small = ["--size", "96", "--maps", "2", "--photos", "3", "--repeats", "1", "--threads", "1", "--markdown"]
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.explanation",
        "full-mobilenet",
        "score-mobilenet",
        *small,
    ]
    finished = subprocess.run(
        [*command, "--shared", str(tmp_path), "--json", str(tmp_path / "found.json")],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("| our engine, ") == 4
    rows = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["case"], row["way"], row["precision"]) for row in rows] == [
        (case, *way)
        for case in ("full-mobilenet", "score-mobilenet")
        for way in ((PUBLISHED, "float32"), (ENGINE, "float32"), (ENGINE, "bfloat16"))
    ]
    assert [row["agreement"]["pairs"] for row in rows if row["way"] == ENGINE] == [1, 3, 2, 3]
    assert all(row["median"] > 0 and row["peak_megabytes"] > 0 for row in rows)
