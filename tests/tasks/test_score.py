from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairx_engine.device.tuning import Tuning
from pairx_engine.errors import PhotoError
from pairx_engine.local.homography import NoHomography, estimate_homography, rescale
from pairx_engine.pair.explain import explain_pair
from pairx_engine.pair.plausibility import plausibility
from pairx_engine.photo.chips import chip_of
from pairx_engine.relevance.explainer import LayerExplainer
from tasks import keypoints
from tasks.job import Job, matcher_of, model_of
from tasks.keypoints import stored_features
from tasks.memory import within_memory
from tasks.pairs import Pair
from tasks.photo_files import ViewCache
from tasks.shards import Stopwatch
from tasks.stages import score
from tasks.stages.score import plan_score, score_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, files_of, views_of
from tests.tasks.test_embed import cut_of

CHECKED_PAIRS = 12


@pytest.fixture(scope="module")
def views(done: Stages) -> dict[str, dict[Any, dict[str, Any]]]:
    return views_of(done.warehouse, ("pairs", "scores", "matches", "relevances"), done.columns())


@pytest.fixture
def elsewhere(done: Stages, tmp_path: Path) -> Job:
    """The finished job with an empty warehouse that holds its keypoints alone."""
    job = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})
    for name in done.warehouse.shards("keypoints", job.prints.keypoints):
        rows = done.warehouse.read("keypoints", job.prints.keypoints, [name])
        job.warehouse.write("keypoints", job.prints.keypoints, name, rows)
    return job


def test_plan_brings_photos_and_keypoint_shards() -> None:
    pairs = [Pair("3", "b", "c"), Pair("1", "a", "b"), Pair("2", "a", "d")]
    columns = ("chip_id", "root", "path", "sha256", "box", "theta")
    photos = {i: dict.fromkeys(columns) | {"photo_id": i} for i in "abcd"}
    shards = plan_score(pairs, photos, {"a": "s1", "b": "s2", "c": "s1"}, 2)
    # The photos are visited in the order a, b, c, d.
    assert [[p.pair_id for p in s.pairs] for s in shards] == [["1", "3"], ["2"]]
    assert [[p["photo_id"] for p in s.photos] for s in shards] == [["a", "b", "c"], ["a", "d"]]
    assert [s.keypoint_shards for s in shards] == [("s1", "s2"), ("s1",)]
    assert shards[0].name != shards[1].name
    assert plan_score([], photos, {}, 2) == []


def test_a_shard_has_a_bounded_number_of_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "_MOST_PHOTOS", 3)
    columns = ("chip_id", "root", "path", "sha256", "box", "theta")
    photos = {i: dict.fromkeys(columns) | {"photo_id": i} for i in "abcdef"}
    pairs = [Pair(a + b, a, b) for a, b in ("ab", "cd", "ef", "bc", "de")]
    shards = plan_score(pairs, photos, {}, 100)
    assert [[p["photo_id"] for p in s.photos] for s in shards] == [
        ["a", "b", "c"],
        ["c", "d", "e"],
        ["e", "f"],
    ]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_beside_the_device_change_no_byte(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    used: set[int] = set()
    evidence = keypoints.local_evidence

    def spy(*given: Any) -> Any:
        used.add(threading.get_ident())
        return evidence(*given)

    monkeypatch.setattr(keypoints, "local_evidence", spy)
    for count, shard in ((threads, done.score[1]), (1, done.score[0])):
        monkeypatch.setattr(score.torch, "get_num_threads", lambda count=count: count)
        used.clear()
        score_shard(elsewhere, shard)
        assert (threading.get_ident() in used) == (count == 1)
    assert used == {threading.get_ident()}
    again, first = files_of(elsewhere.warehouse), files_of(done.warehouse)
    assert again == {path: first[path] for path in again}


def test_what_fails_on_a_thread_fails_its_pair_alone(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, evidence = done.score[0], score.evidence_between
    monkeypatch.setattr(score.torch, "get_num_threads", lambda: 2)
    asked: list[None] = []

    def failing(*given: Any) -> Any:
        asked.append(None)
        if len(asked) == 3:
            raise ZeroDivisionError("no width")
        return evidence(*given)

    monkeypatch.setattr(score, "evidence_between", failing)
    result = score_shard(elsewhere, shard)
    assert (result.rows, result.failed) == (len(shard.pairs) - 1, 1)

    def dead(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(score, "_relevances", dead)
    with pytest.raises(RuntimeError, match="illegal"):
        score_shard(elsewhere, shard)


def test_the_normalised_chips_are_not_held(done: Stages) -> None:
    seen = score._see(done.job, done.score[0], [], Stopwatch())
    assert len(seen) == len(done.score[0].photos)
    for sight in seen.values():
        assert sight.seen.chip.numel() == 0
        assert sight.pixels.shape == (*done.job.chip_size, 3)


def test_every_pair_has_one_row_in_each_table(done: Stages, views: dict[str, Any]) -> None:
    keys = {(pair, done.job.layers[0]) for (pair,) in views["pairs"]}
    assert len(keys) > 40
    for table in ("scores", "matches", "relevances"):
        assert views[table].keys() == keys
        for (pair, _), row in views[table].items():
            wanted = views["pairs"][(pair,)]
            assert (row["photo_a"], row["photo_b"]) == (wanted["photo_a"], wanted["photo_b"])


def test_rows_are_what_one_pair_explained_alone_gives(done: Stages, views: dict[str, Any]) -> None:
    job, photos, layer = done.job, done.photos(), done.job.layers[0]
    model, matcher, chosen = model_of(job), matcher_of(job), done.job.settings
    local = {k[0]: f for k, f in stored_features(job.warehouse.read("keypoints", job.prints.keypoints))}
    keys = sorted(views["scores"])
    with_h = [k for k in keys if views["scores"][k]["homography"]]
    without = [k for k in keys if not views["scores"][k]["homography"]]
    assert with_h
    assert without
    for key in with_h[: CHECKED_PAIRS // 2] + without[: CHECKED_PAIRS // 2]:
        row, match, grids = (views[t][key] for t in ("scores", "matches", "relevances"))
        cuts = [cut_of(photos[row[f"photo_{side}"]]) for side in "ab"]
        alone = explain_pair(model, *(chip_of(c, model.chip) for c in cuts), layer, chosen.preset, 0)

        for side, grid in zip("ab", (alone.finding.sides[0].grid, alone.finding.sides[1].grid), strict=True):
            stored = np.array(grids[f"grid_{side}"]).reshape(grids["height"], grids["width"])
            np.testing.assert_allclose(stored, grid, rtol=0, atol=1e-5 * grid.max())
            assert row[f"relevance_{side}"] == pytest.approx(grid.sum(dtype=np.float64), rel=1e-5)

        cells = zip(match["column_a"], match["row_a"], match["column_b"], match["row_b"], strict=True)
        order = {cell: i for i, cell in enumerate(cells)}
        both = np.concatenate([alone.finding.sides[0].cells, alone.finding.sides[1].cells], axis=1).tolist()
        assert {tuple(c) for c in both} == order.keys()
        at = [order[tuple(c)] for c in both]
        points = [np.stack([np.array(match[f"{axis}_{side}"])[at] for axis in "xy"], 1) for side in "ab"]
        np.testing.assert_allclose(points[0], alone.finding.sides[0].points, rtol=1e-6)
        np.testing.assert_allclose(points[1], alone.finding.sides[1].points, rtol=1e-6)
        np.testing.assert_allclose(
            np.array(match["distance"])[at], alone.finding.distance, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            np.array(match["relevance"])[at],
            alone.finding.relevance,
            rtol=1e-5,
            atol=1e-5 * alone.finding.relevance.max(),
        )

        a, b = local[row["photo_a"]], local[row["photo_b"]]
        index = matcher.match(a, b)
        found = estimate_homography(
            a.points[index[:, 0]],
            b.points[index[:, 1]],
            chosen.homography,
            chosen.homography_threshold,
            matcher.min_inliers,
        )
        assert row["n_local_matches"] == len(index)
        matrix = None
        if isinstance(found, NoHomography):
            assert (row["homography"], row["no_homography_reason"], row["n_inliers"]) == (
                None,
                found.reason,
                None,
            )
        else:
            size = job.chip_size[::-1]
            matrix = rescale(found.matrix, a.view_size, size, b.view_size, size)
            np.testing.assert_allclose(row["homography"], matrix.ravel(), rtol=1e-9)
            assert (row["n_inliers"], row["no_homography_reason"]) == (found.n_inliers, None)
        wanted = plausibility(
            alone.finding.sides[0].cells, alone.finding.sides[1].cells, alone.finding.sides[0].points, alone.finding.sides[1].points,
            alone.finding.sides[0].grid, alone.finding.sides[1].grid, matrix,
        )  # fmt: skip
        for name in (
            "n_matches",
            "match_fraction",
            "match_coverage",
            "residual_mean",
            "inverted_residual_mean",
        ):
            value = getattr(wanted, name)
            assert row[name] == (None if value is None else pytest.approx(value, rel=1e-5)), name
        # The top matches change with the last digit of a relevance: a looser bound.
        top = wanted.top_residual_mean
        assert row["top_residual_mean"] == (None if top is None else pytest.approx(top, rel=0.05))


def test_stored_scores_follow_from_stored_matches(views: dict[str, Any]) -> None:
    """Eq. 4 and Eq. 5 written out over the rows of `matches`, `relevances` and the homography of `scores`."""
    for key, row in views["scores"].items():
        match, grids = views["matches"][key], views["relevances"][key]
        n = len(match["relevance"])
        cells = grids["height"] * grids["width"]
        assert row["n_matches"] == n
        assert row["match_fraction"] == pytest.approx(n / cells)
        assert match["relevance"] == sorted(match["relevance"], reverse=True)
        matched = total = 0.0
        for side in "ab":
            grid = grids[f"grid_{side}"]
            total += sum(map(abs, grid))
            at = [
                r * grids["width"] + c
                for r, c in zip(match[f"row_{side}"], match[f"column_{side}"], strict=True)
            ]
            assert len(set(at)) == n
            matched += sum(abs(grid[i]) for i in at)
        # The cosine of two equal pictures is at its maximum: its gradient, and all relevance with it, is
        # zero.
        assert row["match_coverage"] == (pytest.approx(matched / total, rel=1e-5) if total else None)
        if row["homography"] is None:
            assert match["residual"] is None
            assert row["residual_mean"] is row["inverted_residual_mean"] is None
            assert row["no_homography_reason"]
            continue
        h = row["homography"]
        residuals = []
        for xa, ya, xb, yb in zip(match["x_a"], match["y_a"], match["x_b"], match["y_b"], strict=True):
            w = h[6] * xa + h[7] * ya + h[8]
            u, v = (h[0] * xa + h[1] * ya + h[2]) / w, (h[3] * xa + h[4] * ya + h[5]) / w
            residuals.append(((u - xb) ** 2 + (v - yb) ** 2) ** 0.5)
        np.testing.assert_allclose(match["residual"], residuals, rtol=1e-4, atol=1e-4)
        mean = sum(residuals) / n
        assert row["residual_mean"] == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert row["inverted_residual_mean"] == pytest.approx(1 / max(mean, 1e-6), rel=1e-5)


def test_one_shard_twice_gives_the_same_bytes(done: Stages, elsewhere: Job) -> None:
    score_shard(elsewhere, done.score[1])
    again, first = files_of(elsewhere.warehouse), files_of(done.warehouse)
    assert {path.partition("/")[0] for path in again} == {
        "keypoints",
        "matches",
        "relevances",
        "signals",
        "scores",
    }
    assert again == {path: first[path] for path in again}


def test_a_pair_does_not_depend_on_its_shard(done: Stages, elsewhere: Job, views: dict[str, Any]) -> None:
    pair = done.score[0].pairs[3]
    photos = {p["photo_id"]: p for p in done.score[0].photos}
    with_keypoints = dict.fromkeys(photos, "")
    for name in done.warehouse.shards("keypoints", elsewhere.prints.keypoints):
        table = elsewhere.warehouse.read("keypoints", elsewhere.prints.keypoints, [name], ["photo_id"])
        with_keypoints |= dict.fromkeys(set(table["photo_id"].to_pylist()) & photos.keys(), name)
    (shard,) = plan_score([pair], photos, with_keypoints, 8)
    score_shard(elsewhere, shard)
    (row,) = elsewhere.warehouse.read("scores", elsewhere.prints.scores).to_pylist()
    wanted = views["scores"][pair.pair_id, row["layer"]]
    for name, value in row.items():
        if isinstance(value, float):
            assert value == pytest.approx(wanted[name], rel=1e-5), name
        elif name != "homography":
            assert value == wanted[name], name


def test_photos_without_keypoints_have_no_homography(done: Stages, elsewhere: Job) -> None:
    shard = done.score[0]
    score_shard(elsewhere, type(shard)(shard.pairs, shard.photos, ()))
    rows = elsewhere.warehouse.read("scores", elsewhere.prints.scores).to_pylist()
    assert {r["no_homography_reason"] for r in rows} == {"no_keypoints"}
    assert {r["n_local_matches"] for r in rows} == {0}


@pytest.mark.parametrize("broken", ["matches", "relevances", "scores"])
def test_a_shard_that_breaks_off_is_not_done(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    write, prints = Warehouse.write, elsewhere.prints

    def failing(self: Warehouse, table: str, *rest: Any) -> int:
        if table == broken:
            raise OSError("no space left on device")
        return write(self, table, *rest)

    # The numbers are computed elsewhere; only the order of the files counts here.
    monkeypatch.setattr(score, "_relevances", lambda *_: {})
    monkeypatch.setattr(score, "_see", lambda *_: {})
    monkeypatch.setattr(Warehouse, "write", failing)
    with pytest.raises(OSError, match="no space"):
        score_shard(elsewhere, done.score[0])
    written = [t for t in ("matches", "relevances", "scores") if elsewhere.warehouse.shards(t, prints.scores)]
    assert written == ["matches", "relevances", "scores"][: ["matches", "relevances", "scores"].index(broken)]
    assert not elsewhere.warehouse.exists("scores", prints.scores, done.score[0].name)


@pytest.fixture
def in_company(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Three photos at a time, as on a GPU; the sizes of the groups that were recorded."""
    together = Tuning(3, 4, 2, None, None, windows=False, forward="contiguous", pull=None)
    monkeypatch.setattr("pairx_engine.relevance.explainer.tuning_for", lambda *_: together)
    recorded: list[int] = []
    relevances = LayerExplainer.relevances

    def spy(explainer: LayerExplainer, seen: Any, starts: Any) -> Any:
        recorded.append(len(seen))
        return relevances(explainer, seen, starts)

    monkeypatch.setattr(LayerExplainer, "relevances", spy)
    return recorded


def test_photos_in_company_score_as_they_do_alone(
    done: Stages, elsewhere: Job, views: dict[str, Any], in_company: list[int]
) -> None:
    score_shard(elsewhere, done.score[0])
    photos = len({i for p in done.score[0].pairs for i in (p.photo_a, p.photo_b)})
    assert max(in_company) == 3
    assert sum(in_company) == photos
    rows = elsewhere.warehouse.read("scores", elsewhere.prints.scores).to_pylist()
    assert len(rows) == len(done.score[0].pairs)
    for row in rows:
        wanted = views["scores"][row["pair_id"], row["layer"]]
        assert row["n_matches"] == wanted["n_matches"]
        for name in ("match_coverage", "relevance_a", "relevance_b"):
            assert row[name] == pytest.approx(wanted[name], rel=1e-4), name


def test_in_company_too_a_failure_is_one_photos(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch, in_company: list[int]
) -> None:
    shard = done.score[0]
    spoilt = shard.pairs[0].photo_b
    normalise = type(model_of(elsewhere)).normalise
    (photo,) = [p for p in shard.photos if p["photo_id"] == spoilt]
    pixels = chip_of(cut_of(photo), model_of(elsewhere).chip)

    def failing(model: Any, chips: Any) -> Any:
        if any(np.array_equal(chip, pixels) for chip in chips):
            raise ZeroDivisionError("no width")
        return normalise(model, chips)

    monkeypatch.setattr(type(model_of(elsewhere)), "normalise", failing)
    result = score_shard(elsewhere, shard)
    failed = {p.pair_id for p in shard.pairs if spoilt in (p.photo_a, p.photo_b)}
    failures = elsewhere.warehouse.read("failures", elsewhere.prints.scores).to_pylist()
    assert {(f["item"], f["code"]) for f in failures} == {(i, "internal_error") for i in failed}
    assert (result.rows, result.failed) == (len(shard.pairs) - len(failed), len(failed))


def test_a_shard_scored_in_parts_for_want_of_memory_has_the_same_bytes(done: Stages, elsewhere: Job) -> None:
    shard = done.score[0]
    assert len(shard.photos) > 4
    with within_memory(1):
        score_shard(elsewhere, shard)
    again, first = files_of(elsewhere.warehouse), files_of(done.warehouse)
    assert {path.partition("/")[0] for path in again} >= {"matches", "relevances", "scores"}
    assert again == {path: first[path] for path in again}


def test_a_lost_photo_fails_its_pairs_and_no_others(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = done.score[0]
    lost = shard.pairs[0].photo_a

    class Leaky(ViewCache):
        def views(self, photo: Any, max_pixels: int, *ways: Any) -> Any:
            if photo["photo_id"] == lost:
                raise PhotoError("changed_file", "it changed")
            return super().views(photo, max_pixels, *ways)

    monkeypatch.setattr(score, "VIEWS", Leaky())
    result = score_shard(elsewhere, shard)
    failed = {p.pair_id for p in shard.pairs if lost in (p.photo_a, p.photo_b)}
    assert 0 < len(failed) < len(shard.pairs)
    failures = elsewhere.warehouse.read("failures", elsewhere.prints.scores).to_pylist()
    assert {(f["stage"], f["item"], f["code"]) for f in failures} == {
        ("score", i, "changed_file") for i in failed
    }
    scores = elsewhere.warehouse.read("scores", elsewhere.prints.scores, columns=["pair_id"])
    assert set(scores["pair_id"].to_pylist()) == {p.pair_id for p in shard.pairs} - failed
    assert (result.rows, result.failed) == (len(shard.pairs) - len(failed), len(failed))


def test_relevance_that_is_not_finite_is_a_failure(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, relevances = done.score[0], score._relevances
    sick = shard.pairs[2].pair_id

    def spoilt(job: Job, *rest: Any) -> Any:
        found = relevances(job, *rest)
        found[sick][job.layers[0]][1][0, 0] = np.nan
        return found

    monkeypatch.setattr(score, "_relevances", spoilt)
    score_shard(elsewhere, shard)
    failures = elsewhere.warehouse.read("failures", elsewhere.prints.scores).to_pylist()
    assert [(f["item"], f["code"]) for f in failures] == [(sick, "score_not_finite")]
    assert elsewhere.layers[0] in failures[0]["message"]
    scores = elsewhere.warehouse.read("scores", elsewhere.prints.scores, columns=["pair_id"])[
        "pair_id"
    ].to_pylist()
    assert set(scores) == {p.pair_id for p in shard.pairs} - {sick}


def test_several_layers_give_a_row_each(done: Stages, tmp_path: Path) -> None:
    layers = (done.job.layers[0], "backbone.blocks.2")
    job = Job(**{**vars(done.job), "warehouse": done.warehouse, "layers": layers})
    job = Job(**{**vars(job), "warehouse": Warehouse(str(tmp_path / "w"))})
    shard = done.score[0]
    small = type(shard)(shard.pairs[:2], shard.photos, ())
    score_shard(job, small)
    rows = job.warehouse.read("scores", job.prints.scores, columns=["pair_id", "layer"]).to_pylist()
    assert {(r["pair_id"], r["layer"]) for r in rows} == {
        (p.pair_id, layer) for p in small.pairs for layer in layers
    }
