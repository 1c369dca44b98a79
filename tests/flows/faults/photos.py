"""A photo that ends every process that decodes it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.store.warehouse import Warehouse
from tests.flows.faults.course import Course
from tests.flows.faults.fault import Ends, Fault, Scene
from tests.flows.faults.hooks import DEEDS, POISON
from tests.flows.faults.processes import REPLACED, limit_memory
from tests.flows.faults.site import Site
from tests.small_catalogue import EVERYTHING, assert_same_rows, rewrite, rows_of

GUILTY = "D00004"
"""A photo that no other depends on: neither broken nor a duplicate."""
_STAGES = {"ingest": "tasks.stages.ingest", "embed": "tasks.photo_files"}


class Poison(Fault):
    name = "poison photo"
    about = "a photo whose decoding crashes or kills its worker, or takes all memory, in ingest or in embed"
    own_cluster = True
    slower = 3.0
    """Four workers die one after the other, and each that takes their place has to load everything."""
    strikes = False
    stage: str

    def settings(self) -> Mapping[str, Any]:
        return {"photos_per_shard": 2}

    def course(self, site: Site) -> Course:
        """The run without the guilty photo, made once: all other rows must be as in this run."""
        warehouse = site.folder / "without" / "w"
        catalogue = rewrite(
            site.course.catalogue,
            "without.csv",
            lambda rows: [row for row in rows if row["image_id"] != GUILTY],
        )
        return site.undisturbed(catalogue, warehouse)

    @contextmanager
    def around(self, scene: Scene) -> Iterator[None]:
        scene.catalogue = scene.site.course.catalogue
        with scene.catalogue.open(encoding="utf-8") as file:
            (path,) = [row["path"] for row in csv.DictReader(file) if row["image_id"] == GUILTY]
        photo = hashlib.sha256((scene.catalogue.parent / path).read_bytes()).hexdigest()
        self.stage = scene.rng.choice(list(_STAGES))
        scene.environment |= {
            "DASK_DISTRIBUTED__WORKER__PRELOAD": "tests.flows.faults.hooks",
            POISON: f"{photo} {_STAGES[self.stage]} {scene.rng.choice(DEEDS)}",
        }
        yield

    def started(self, scene: Scene) -> None:
        limit_memory(scene.driver)

    def strike(self, scene: Scene) -> Ends:
        return Ends(0, notices=f"{REPLACED}|the cluster has no worker left")

    def compare(self, scene: Scene) -> None:
        found, wanted = Warehouse(str(scene.warehouse)), Warehouse(str(scene.course.warehouse))
        assert_same_rows(found, wanted, [view for view in EVERYTHING if view not in ("photos", "failures")])
        photos, others = rows_of(found, "photos"), rows_of(wanted, "photos")
        assert photos.keys() - others.keys() == {(GUILTY,)}
        assert {key: photos[key] for key in others} == others
        failures, known = rows_of(found, "failures"), rows_of(wanted, "failures")
        new = [failures[key] for key in failures.keys() - known.keys()]
        assert [(f["stage"], f["item"], f["code"]) for f in new] == [(self.stage, GUILTY, "worker_died")]
