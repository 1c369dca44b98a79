"""Sweep: both plausibility scores of labelled pairs under every variant of the settings.

Coverage depends on layer, preset and reduction, the residuals on layer, local matcher and homography
estimator: costs add up instead of multiplying. A photo runs forward once for all layers, presets that share
their rules are propagated together, and a pair's local matches serve every estimator and layer. Values are
those that the score stage stores under the same settings.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pairx_engine.engine import matcher_identity
from pairx_engine.errors import EngineError
from pairx_engine.local.features import LocalFeatures
from pairx_engine.local.homography import Method, NoHomography, estimate_homography, rescale
from pairx_engine.pair.finding import Grids, Matched, Points, match, pair_grids, weigh
from pairx_engine.pair.plausibility import inverted_residual_mean, residuals
from pairx_engine.relevance.explainer import LayerExplainer, Seen
from pairx_engine.relevance.presets import Reduction, preset_named
from schemas import stages
from schemas.failures import Failure
from schemas.fingerprints import sweep_fingerprint
from tasks.job import Job, engine_of, model_of
from tasks.memory import photos_at_once
from tasks.pair_order import parts
from tasks.pairs import Pair, Photo, photos_of
from tasks.photo_files import VIEWS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.stages.score import bytes_of_a_photo, shard_of
from tasks.store.warehouse import shard_name


@dataclass(frozen=True)
class Sweep:
    """Values to try for each setting; `matchers` are names with the folder of their weights."""

    layers: tuple[str, ...]
    presets: tuple[str, ...]
    reductions: tuple[str, ...]
    matchers: tuple[tuple[str, str | None], ...]
    homographies: tuple[str, ...]


@dataclass(frozen=True)
class SweepShard:
    """Pairs, the photos they need, and what to try on them."""

    pairs: tuple[Pair, ...]
    photos: tuple[Photo, ...]
    sweep: Sweep

    @property
    def name(self) -> str:
        """Hash of the pair ids; the partition says what the sweep tried."""
        return shard_name(p.pair_id for p in self.pairs)


def plan_sweep(
    pairs: Sequence[Pair], photos: Mapping[str, Photo], sweep: Sweep, size: int
) -> list[SweepShard]:
    """Shards of pairs sorted by their photos.

    Names of shards tell what is done of a sweep, so the same pairs must always make the same shards.
    """
    chunked = chunks(sorted(pairs, key=lambda p: (p.photo_a, p.photo_b)), size)
    return [SweepShard(s.pairs, s.photos, sweep) for s in (shard_of(part, photos, {}) for part in chunked)]


def sweep_partition(job: Job, sweep: Sweep) -> str:
    """The partition of `measurements`; every matcher is loaded, since weights count by their content."""
    variants = {name: getattr(sweep, name) for name in ("layers", "presets", "reductions", "homographies")}
    matchers = [matcher_identity(*each, job.settings.max_keypoints) for each in sweep.matchers]
    return sweep_fingerprint(job.settings, job.prints.embeddings, variants, matchers)


def sweep_shard(job: Job, shard: SweepShard) -> ShardResult:
    """Measure the pairs of one shard under every variant and commit their rows of `measurements`.

    A pair with an unreadable photo has no rows. A variant that fails for a pair has no value, and a row
    in `failures`. A variant that the network does not allow, such as a preset on the general path, has
    only no value.
    """
    watch, sweep = Stopwatch(), shard.sweep
    network, precision = model_of(job).network, job.settings.precision
    explainer = LayerExplainer(network, sweep.layers, sweep.presets[0], precision)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    most = photos_at_once(bytes_of_a_photo(job, explainer.see(model_of(job).grey_chip()).nbytes))
    for pairs in parts(shard.pairs, len(shard.pairs), most):
        work = _Work(job, replace(shard, pairs=tuple(pairs), photos=photos_of(pairs, shard.photos)))
        work.see(explainer, watch)
        with watch.in_engine():
            for layer in sweep.layers:
                work.measure_coverage(layer)
        for name, weights in sweep.matchers:
            work.measure_residuals(name, weights, watch)
        rows += work.rows
        failures += work.failures()
    tables, failed = {"measurements": rows}, {"measurements": failures}
    return commit(job, SWEEP, shard.name, tables, failed, watch, sweep_partition(job, sweep))


class _Work:
    """Results so far for a shard, or for as many of its pairs as have their photos in memory at once."""

    def __init__(self, job: Job, shard: SweepShard) -> None:
        self.job, self.shard, self.sweep = job, shard, shard.sweep
        self.pairs: list[Pair] = []
        self.rows: list[dict[str, Any]] = []
        self._seen: dict[str, Seen] = {}
        self._points: dict[tuple[str, str], tuple[Points, Points]] = {}
        self._of_photos: list[Failure] = []
        self._of_pairs: list[Failure] = []
        self._spent: dict[tuple[str, ...], float] = defaultdict(float)

    def see(self, explainer: LayerExplainer, watch: Stopwatch) -> None:
        """One forward pass per photo, for all layers."""
        model, chosen = model_of(self.job), self.job.settings
        for photo in self.shard.photos:
            with or_failure(self._of_photos, "sweep", photo["photo_id"]):
                chip, _ = VIEWS.views(photo, chosen.max_pixels, model.chip, chosen.view_side).pictures
                with watch.in_engine():
                    self._seen[photo["photo_id"]] = explainer.see(model.normalise([chip])[0])
        self.pairs = [p for p in self.shard.pairs if p.photo_a in self._seen and p.photo_b in self._seen]

    def measure_coverage(self, layer: str) -> None:
        """Matches at a layer, and the share of relevance that they cover, by preset and reduction.

        The layer's features are dropped then, since the residuals need only the points.
        """
        seen = {photo: replace(s, features={layer: s.features[layer]}) for photo, s in self._seen.items()}
        matches = {pair.pair_id: self._matched(layer, pair, seen) for pair in self.pairs}
        by_rules: dict[tuple[str, str], list[str]] = defaultdict(list)
        for preset in map(preset_named, self.sweep.presets):
            by_rules[preset.start, preset.rules].append(preset.name)
        for presets in by_rules.values():
            grids = self._relevances(layer, presets[0], seen)
            seconds = self._seconds(("matches", layer), ("relevances", layer, presets[0]))
            for pair in self.pairs:
                found = self._coverages(layer, pair, matches[pair.pair_id], grids.get(pair.pair_id))
                for name in presets:
                    for reduction in self.sweep.reductions:
                        variant = {"preset": name, "reduction": reduction, "value": found.get(reduction)}
                        self._add(pair, layer, "match_coverage", variant, seconds)
        for photo, shown in self._seen.items():
            others = {name: features for name, features in shown.features.items() if name != layer}
            self._seen[photo] = replace(shown, features=others)

    def measure_residuals(self, name: str, weights: str | None, watch: Stopwatch) -> None:
        """Residuals of the matches at every layer, under the homographies of one local matcher."""
        matcher = engine_of(self.job).matcher_named(name, weights)
        chosen, local = self.job.settings, dict[str, LocalFeatures]()
        for photo in self.shard.photos:
            if photo["photo_id"] in self._seen:
                with or_failure(self._of_photos, "sweep", photo["photo_id"]):
                    view = VIEWS.views(photo, chosen.max_pixels, chosen.view_side).pictures[0]
                    with watch.in_engine(), self._timed("extract", name):
                        local[photo["photo_id"]] = matcher.extract(view)
        with watch.in_engine():
            index = {}
            for pair in self.pairs:
                if pair.photo_a in local and pair.photo_b in local:
                    with or_failure(self._of_pairs, "sweep", pair.pair_id), self._timed("match", name):
                        index[pair.pair_id] = matcher.match(local[pair.photo_a], local[pair.photo_b])
            for method in self.sweep.homographies:
                self._measure_estimator(name, matcher.min_inliers, method, local, index)

    def failures(self) -> list[Failure]:
        """One row per pair and layer with its first failure; a photo's failure counts for all its pairs."""
        found = [
            replace(failure, item=pair.pair_id)
            for pair in self.shard.pairs
            for failure in self._of_photos
            if failure.item in (pair.photo_a, pair.photo_b)
        ]
        first: dict[tuple[str, str | None], Failure] = {}
        for failure in [*found, *self._of_pairs]:
            first.setdefault((failure.item, failure.layer), failure)
        return list(first.values())

    def _matched(self, layer: str, pair: Pair, seen: Mapping[str, Seen]) -> Matched | None:
        """The pair's mutual matches; stores their points."""
        with or_failure(self._of_pairs, "sweep", pair.pair_id, layer=layer), self._timed("matches", layer):
            found = match([seen[photo] for photo in (pair.photo_a, pair.photo_b)], layer, self.job.chip_size)
            self._points[layer, pair.pair_id] = found.points
            return found
        return None

    def _relevances(
        self, layer: str, preset: str, seen: Mapping[str, Seen]
    ) -> dict[str, dict[Reduction, Grids]]:
        """Grids by pair and reduction; none where the network does not allow the preset."""
        try:
            explainer = LayerExplainer(
                model_of(self.job).network, [layer], preset, self.job.settings.precision
            ).suited_to("score")
        except EngineError:
            return {}
        reductions = cast("tuple[Reduction, ...]", self.sweep.reductions)

        def relevances(
            starts: Mapping[str, torch.Tensor],
        ) -> Iterator[tuple[str, dict[Reduction, torch.Tensor]]]:
            for photo, at_once in starts.items():
                with (
                    or_failure(self._of_photos, "sweep", photo, layer=layer),
                    self._timed("relevances", layer, preset),
                ):
                    found = explainer.relevance_by_reduction(seen[photo], at_once, reductions)
                    yield photo, {how: found[how][layer] for how in reductions}

        pairs = [(p.pair_id, p.photo_a, p.photo_b) for p in self.pairs]
        embeddings = {photo: shown.embedding for photo, shown in seen.items()}
        return pair_grids(explainer.preset, pairs, embeddings, relevances)

    def _coverages(
        self, layer: str, pair: Pair, matched: Matched | None, grids: Mapping[Reduction, Grids] | None
    ) -> dict[str, float | None]:
        """Coverage by reduction; None where matches or grids failed."""
        if matched is None or grids is None:
            return {}
        with or_failure(self._of_pairs, "sweep", pair.pair_id, layer=layer):
            return {how: weigh(matched, both).coverage() for how, both in grids.items()}
        return {}

    def _measure_estimator(
        self,
        name: str,
        min_inliers: int,
        method: str,
        local: Mapping[str, LocalFeatures],
        index: Mapping[str, NDArray[np.int64]],
    ) -> None:
        matrices = {}
        for pair in self.pairs:
            if pair.pair_id in index:
                with or_failure(self._of_pairs, "sweep", pair.pair_id), self._timed("fit", name, method):
                    sides = local[pair.photo_a], local[pair.photo_b]
                    matrices[pair.pair_id] = self._homography(
                        *sides, index[pair.pair_id], method, min_inliers
                    )
        seconds = self._seconds(("extract", name), ("match", name), ("fit", name, method))
        for layer in self.sweep.layers:
            for pair in self.pairs:
                matrix, points = matrices.get(pair.pair_id), self._points.get((layer, pair.pair_id))
                value = None
                if matrix is not None and points is not None:
                    value = inverted_residual_mean(residuals(matrix, *points))
                variant = {"matcher": name, "homography": method, "value": value}
                self._add(pair, layer, "inverted_residual_mean", variant, seconds)

    def _homography(
        self, a: LocalFeatures, b: LocalFeatures, index: NDArray[np.int64], method: str, min_inliers: int
    ) -> NDArray[np.float64] | None:
        """The homography from one chip to the other as in `local_evidence`, for known matches."""
        found = estimate_homography(
            a.points[index[:, 0]],
            b.points[index[:, 1]],
            cast("Method", method),
            self.job.settings.homography_threshold,
            min_inliers,
        )
        if isinstance(found, NoHomography):
            return None
        chip = (self.job.chip_size[1], self.job.chip_size[0])
        return rescale(found.matrix, a.view_size, chip, b.view_size, chip)

    @contextmanager
    def _timed(self, *what: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._spent[what] += time.perf_counter() - begun

    def _seconds(self, *parts: tuple[str, ...]) -> float:
        """Seconds per pair of the parts that were timed under these names."""
        return sum(self._spent[part] for part in parts) / max(1, len(self.pairs))

    def _add(self, pair: Pair, layer: str, score: str, variant: Mapping[str, Any], seconds: float) -> None:
        key = {"pair_id": pair.pair_id, "photo_a": pair.photo_a, "photo_b": pair.photo_b, "layer": layer}
        self.rows.append({**key, "score": score, **variant, "seconds": seconds})


SWEEP = Stage.of(stages.SWEEP, sweep_shard, lambda shard: len(shard.pairs))
