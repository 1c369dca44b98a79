"""Explanations that the run did not store, computed when a curator first asks for them, and then kept (`kept.py`).

They are those of `pairx compare --warehouse --pair`: same model, layer, preset and cut as the newest run. One is
computed at a time; the model is loaded with the first that nobody asked for before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.review.catalogue import ReviewedCatalogue
from flows.review.kept import Kept, KeptFiles
from pairx_engine.errors import PairxError
from schemas.settings import Settings
from schemas.stored_settings import stored_settings
from tasks.photo_files import read_cut
from tasks.store.warehouse import Warehouse, is_name

if TYPE_CHECKING:
    from pairx_engine.comparison import Compared
    from tasks.job import Job

_KEPT = 200
"""Explanations in memory, the last ones; each is some 80 kB."""
_MOST_WAITING = 8
_MOST_POINTS, _MOST_INLIERS = 40, 120
INLIERS = "local_inliers"
"""The run's own local matcher: the matches that its homography explains."""


_SETTINGS = (
    "SELECT run_id, r.settings, r.explanations_fingerprint FROM runs AS r JOIN current_run USING (run_id)"
)
_KEYPOINTS = "SELECT * FROM keypoints WHERE list_contains(?, photo_id) AND list_contains(?, chip_id)"


class NotExplained(PairxError):
    """The method cannot explain this pair or this network."""

    ends_the_run = False


@dataclass(frozen=True)
class _OfRun:
    """What one run sets: its settings, and where explanations under these are kept."""

    run_id: str | None
    settings: Settings
    files: KeptFiles | None


class Methods:
    """Explains pairs of a warehouse by any method; raises nothing until it is asked to."""

    def __init__(self, warehouse: Warehouse, catalogue: Callable[[], ReviewedCatalogue]) -> None:
        self._warehouse, self._catalogue = warehouse, catalogue
        self._found: OrderedDict[tuple[str | None, str, str], Kept] = OrderedDict()
        self._working, self._memory, self._room = Lock(), Lock(), BoundedSemaphore(_MOST_WAITING)
        self._shown: _OfRun | None = None
        self._prepared: tuple[_OfRun, Job] | None = None

    def _of_run(self) -> _OfRun:
        """What the newest run set; the program's own settings where no run says."""
        from flows.inherited import with_inherited

        catalogue = self._catalogue()
        if self._shown is None or self._shown.run_id != catalogue.run_id:
            rows = catalogue.query(_SETTINGS, [])
            stored = stored_settings(rows[0]["run_id"], rows[0]["settings"]) if rows else {}
            fingerprint = rows[0]["explanations_fingerprint"] if rows else None
            files = KeptFiles(self._warehouse, fingerprint) if fingerprint and is_name(fingerprint) else None
            self._shown = _OfRun(catalogue.run_id, with_inherited(stored, {}), files)
        return self._shown

    @property
    def max_pixels(self) -> int:
        """Pixels of the largest photo that is decoded."""
        return self._of_run().settings.max_pixels

    def listed(self) -> list[dict[str, Any]]:
        """Names of all affordable methods and what they are."""
        from pairx_engine.explanations import explanations, usual

        known = explanations()
        return [{"name": name, "about": known[name].about} for name in usual() if name in known]

    def known(self, pair_id: str) -> list[str]:
        """Methods that one may choose whose explanation of a pair is there at once."""
        of = self._of_run()
        with self._memory:
            here = {method for run, pair, method in self._found if (run, pair) == (of.run_id, pair_id)}
        return sorted(here.union(of.files.of_pair(pair_id) if of.files else ()) - {INLIERS})

    def kept(self, pair_id: str, method: str) -> Kept | None:
        """An explanation that was computed before, by this server or another one."""
        of = self._of_run()
        with self._memory:
            found = self._found.get((of.run_id, pair_id, method))
        if found is None and of.files is not None and (found := of.files.read(pair_id, method)) is not None:
            self._keep(of, pair_id, found)
        return found

    def explained(
        self, pair_id: str, photos: tuple[Mapping[str, Any], Mapping[str, Any]], method: str
    ) -> Kept:
        """A pair of `photos` rows explained by a method.

        Raises `NotExplained` with the reason where that cannot be, `PhotoError` where a photo cannot be read, and
        `EngineError` for an unknown method.
        """
        if (found := self.kept(pair_id, method)) is not None:
            return found
        if not self._room.acquire(blocking=False):
            raise NotExplained("others are waiting for explanations; ask again in a moment")
        try:
            return self._in_turn(pair_id, photos, method)
        finally:
            self._room.release()

    def _in_turn(
        self, pair_id: str, photos: tuple[Mapping[str, Any], Mapping[str, Any]], method: str
    ) -> Kept:
        with self._working:
            if (found := self.kept(pair_id, method)) is not None:
                return found
            of = self._of_run()
            if method == INLIERS:
                found, lasting = self._inliers(of.settings, photos), True
            else:
                found, lasting = self._computed(of, photos, method)
            self._keep(of, pair_id, found)
            if lasting and of.files is not None:
                of.files.write(pair_id, found)
            return found

    def _keep(self, of: _OfRun, pair_id: str, found: Kept) -> None:
        key = (of.run_id, pair_id, found.method)
        with self._memory:
            self._found[key] = found
            self._found.move_to_end(key)
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)

    def _job(self, of: _OfRun) -> Job:
        from tasks.job import prepare_job

        if self._prepared is None or self._prepared[0] != of:
            self._prepared = of, prepare_job(self._warehouse, of.settings)
        return self._prepared[1]

    def _computed(
        self, of: _OfRun, photos: tuple[Mapping[str, Any], Mapping[str, Any]], method: str
    ) -> tuple[Kept, bool]:
        """An explanation, and whether it lasts: what rests on something learned may change with it."""
        from flows.notebook import states_of
        from pairx_engine.comparison import Comparer
        from tasks.job import engine_of

        job = self._job(of)
        learned = states_of(job, [method])
        comparer = Comparer(engine_of(job), [method], max(1, of.settings.n_pixel_maps), learned)
        cuts = [read_cut(photo, of.settings.max_pixels) for photo in photos]
        (one,) = comparer.compare((cuts[0], cuts[1])).methods
        return _kept(one), not learned

    def _inliers(self, chosen: Settings, photos: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Kept:
        from pairx_engine.engine import Engine
        from pairx_engine.local.evidence import local_evidence
        from tasks.job import device, recipe_of
        from tasks.keypoints import stored_features

        wanted = [[photo[name] for photo in photos] for name in ("photo_id", "chip_id")]
        features = dict(stored_features(self._catalogue().table(_KEYPOINTS, wanted)))
        a, b = (features.get((photo["photo_id"], photo["chip_id"])) for photo in photos)
        if a is None or b is None:
            raise NotExplained("the run stored no local features of one of the two photos")
        matcher = Engine(recipe_of(chosen), device()).matcher
        # Points in thousandths of the cut: no model is needed to know its chip.
        found = local_evidence(matcher, a, b, (1000, 1000), chosen.homography, chosen.homography_threshold)
        remark = f"{found.n_matches} local matches by {chosen.matcher}, " + (
            f"no homography: {found.reason}"
            if found.inliers is None
            else f"{found.n_inliers} fit one homography"
        )
        matches: list[dict[str, Any]] = []
        if found.points is not None and found.inliers is not None:
            one, two = (side[found.inliers] / 1000.0 for side in found.points)
            matches = [
                {"a": at.tolist(), "b": to.tolist(), "share": 1.0, "residual": None}
                for at, to in zip(one[:_MOST_INLIERS], two[:_MOST_INLIERS], strict=True)
            ]
        return Kept(INLIERS, "matches of the local matcher", {}, matches, [remark])


def _kept(one: Compared) -> Kept:
    from flows.review.marks import heat
    from pairx_engine.figure.comparison import strength

    if one.explained is None or one.maps is None:
        raise NotExplained(f"{one.method.name} cannot explain this pair: {one.reason}")
    points, relevance = one.explained.shown.points, one.explained.shown.relevance
    shapes = [grid.shape[:2] for grid in one.maps]
    matches = []
    strongest = float(relevance[0]) if len(relevance) else 1.0
    for i in range(min(_MOST_POINTS, len(relevance))):
        a, b = (
            [float(side[i][0]) / shape[1], float(side[i][1]) / shape[0]]
            for side, shape in zip(points, shapes, strict=True)
        )
        matches.append({"a": a, "b": b, "share": float(relevance[i]) / (strongest or 1.0), "residual": None})
    pictures = {
        side: heat(np.asarray(strength(grid), dtype=np.float64))
        for side, grid in zip("ab", one.maps, strict=True)
    }
    return Kept(one.method.name, one.method.about, pictures, matches, list(one.remarks))
