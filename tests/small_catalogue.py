"""A small drawn catalogue, the whole job on it without Prefect, and comparison of two warehouses.

Warehouses are compared row by row.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from flows.demo.catalogue import Planting, write_drawn_catalogue
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.settings import Settings
from schemas.sql.files import view_files
from schemas.tables.registry import TABLES
from schemas.views.install import install_views
from tasks.gallery import Gallery
from tasks.job import Job, prepare_job
from tasks.retrieval.kept import keep_found, keep_gallery
from tasks.retrieval.plan import ask_all
from tasks.runs.log import RunLog
from tasks.runs.remaining import look
from tasks.stages.draw import DrawShard, draw_shard, plan_draw
from tasks.stages.embed import EmbedShard, embed_shard, plan_embed
from tasks.stages.flag import flag
from tasks.stages.ingest import IngestShard, ingest_shard, plan_ingest
from tasks.stages.judge import judge
from tasks.stages.retrieve import retrieve_shard
from tasks.stages.score import ScoreShard, plan_score, score_shard
from tasks.stages.verify import VerifyShard, plan_verify, verify_shard
from tasks.store.warehouse import Warehouse

ANIMALS = {"spots": 2, "stripes": 2, "blotches": 2}
PLANTING = Planting(wrong_name_share=0.06, unknown_share=0.06, copies=1, duplicates=1, broken=6)
BROKEN_CODES = {
    "empty_file": 1,
    "truncated": 1,
    "web_page": 1,
    "missing_file": 1,
    "box_outside": 1,
    "too_many_pixels": 1,
}
"""One broken photo of each kind that `write_drawn_catalogue` plants."""
TINY: dict[str, Any] = {
    "figures": 2,
    "n_pixel_maps": 2,
    "photos_per_shard": 8,
    "pairs_per_shard": 16,
    "workers": 1,
    "top_k": 3,
    "same_name_k": 1,
    "other_name_k": 1,
    "references": 3,
    "neighbours": 5,
    "max_keypoints": 256,
    "cluster": "local",
}
"""Settings that make the job small: tens of pairs, several shards a stage."""
COMPARED = (
    "photos",
    "failures",
    "embeddings",
    "keypoints",
    "neighbours",
    "pairs",
    "scores",
    "copies",
    "matches",
    "relevances",
    "signals",
    "suspects",
)
"""Current views that two ways to the same catalogue must agree on."""
EVERYTHING = tuple(name for name in view_files() if name in TABLES and name not in ("runs", "reviews"))
"""All current views of tables but `runs`, which holds times of day, and `reviews`."""
_KEYS = {name: table.key for name, table in TABLES.items()} | {
    "photos": ("photo_id",),
    "neighbours": ("photo", "other"),
    "suspects": ("rank",),
}


def small_catalogue(folder: Path) -> Path:
    """`metadata.csv` of the small catalogue below `folder`, drawn there unless it is there already."""
    metadata = folder / "metadata.csv"
    if not metadata.exists():
        write_drawn_catalogue(folder, 2, ANIMALS, PLANTING)
    return metadata


def rewrite(
    metadata: Path, name: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]
) -> Path:
    """Write another catalogue of the same photos: the rows of `metadata` after `change`.

    It goes into file `name` beside `metadata`.
    """
    with metadata.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    changed = change(rows)
    path = metadata.with_name(name)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(changed)
    return path


@dataclass
class Stages:
    """The job in one process, without Prefect: planning and stage functions are the nightly flow's."""

    job: Job
    catalogue: Catalogue
    ingest: list[IngestShard] = field(default_factory=list)
    embed: list[EmbedShard] = field(default_factory=list)
    gallery: Gallery | None = None
    score: list[ScoreShard] = field(default_factory=list)
    verify: list[VerifyShard] = field(default_factory=list)
    draw: list[DrawShard] = field(default_factory=list)

    @classmethod
    def run(cls, catalogue: Catalogue, warehouse: Warehouse, until: str = "draw", **settings: Any) -> Stages:
        """Run the stages up to and with `until`."""
        done = cls(prepare_job(warehouse, Settings(**{**TINY, **settings})), catalogue)
        for stage in ("ingest", "embed", "retrieve", "score", "verify", "judge", "flag", "draw"):
            getattr(done, f"_{stage}")()
            if stage == until:
                break
        return done

    @property
    def warehouse(self) -> Warehouse:
        return self.job.warehouse

    @property
    def size(self) -> int:
        return self.job.settings.photos_per_shard

    def columns(self) -> dict[str, Any]:
        """The columns of `current_run`."""
        return RunLog(self.job).columns(self.gallery.state if self.gallery else None)

    def photos(self) -> dict[str, Mapping[str, Any]]:
        """Current rows of all photos, withdrawn ones too."""
        with look(self.job, self.columns()) as (_, left):
            return left.photos()

    def _ingest(self) -> None:
        self.ingest = plan_ingest(self.catalogue, self.photos(), self.size)
        for shard in self.ingest:
            ingest_shard(self.job, shard)

    def _embed(self) -> None:
        with look(self.job, self.columns()) as (_, left):
            self.embed = plan_embed(*left.to_embed(), self.size)
        for shard in self.embed:
            embed_shard(self.job, shard)

    def _retrieve(self) -> None:
        with look(self.job, self.columns()) as (connection, left):
            self.gallery = left.gallery()
            keep_gallery(self.job, self.gallery)
            asked = ask_all(self.gallery)
            found = [retrieve_shard(self.job, s) for s in asked.shards()]
            keep_found(self.job, connection, asked, found)

    def _score(self) -> None:
        with look(self.job, self.columns()) as (_, left):
            pairs = left.unscored()
            self.score = plan_score(
                pairs, left.photos_of(pairs), left.keypoint_shards(), self.job.settings.pairs_per_shard
            )
        for shard in self.score:
            score_shard(self.job, shard)

    def _verify(self) -> None:
        with look(self.job, self.columns()) as (_, left):
            pairs = left.unverified()
            self.verify = plan_verify(pairs, left.photos_of(pairs), self.job.settings.pairs_per_shard)
        for shard in self.verify:
            verify_shard(self.job, shard)

    def _judge(self) -> None:
        assert self.gallery is not None
        with look(self.job, self.columns(), keep=True) as (connection, _):
            judge(self.job, connection, self.gallery.state)

    def _flag(self) -> None:
        assert self.gallery is not None
        with look(self.job, self.columns(), keep=True) as (connection, _):
            flag(self.job, connection, self.gallery.state)

    def _draw(self) -> None:
        with look(self.job, self.columns(), keep=True) as (_, left):
            self.draw = plan_draw(left.undrawn(self.job.settings.figures))
        for shard in self.draw:
            draw_shard(self.job, shard)


def read_small(metadata: Path) -> Catalogue:
    """The catalogue as the job sees it."""
    return read_catalogue(str(metadata))


def rows_of(
    warehouse: Warehouse, view: str, run: str | Mapping[str, Any] | None = None
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows of a current view by their key; fails when a key occurs twice."""
    return views_of(warehouse, (view,), run)[view]


def views_of(
    warehouse: Warehouse, views: Iterable[str], run: str | Mapping[str, Any] | None = None
) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    """Rows of several current views, each by its key."""
    connection = duckdb.connect(":memory:")
    wanted = tuple(views)
    install_views(
        connection, warehouse, run, materialise="suspects" in wanted or ("photos", "pairs"), wanted=wanted
    )
    found = {}
    for view in wanted:
        cursor = connection.execute(f"SELECT * FROM {view}")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        keyed = {tuple(row[k] for k in _KEYS[view]): row for row in rows}
        assert len(keyed) == len(rows), f"{view} repeats a key"
        found[view] = keyed
    connection.close()
    return found


def assert_same_rows(
    found: Warehouse, wanted: Warehouse, views: Sequence[str] = COMPARED, tolerance: float = 1e-5
) -> None:
    """Both warehouses show the same current rows: keys, texts and integers exactly, floats to `tolerance`.

    Lists are compared to `tolerance` of their largest element. The matches of a pair are compared by their
    cells: two of them whose relevances agree to the last digits may change places.
    """
    one, other = views_of(found, views), views_of(wanted, views)
    for view in views:
        assert one[view].keys() == other[view].keys(), f"{view}: other keys"
        for key, row in other[view].items():
            mine = one[view][key]
            if view == "matches":
                mine, row = _by_cells(mine), _by_cells(row)
            for column, value in row.items():
                _assert_same(mine[column], value, tolerance, f"{view} {key} {column}")


def _by_cells(row: dict[str, Any]) -> dict[str, Any]:
    cells = list(zip(row["row_a"], row["column_a"], row["row_b"], row["column_b"], strict=True))
    order = sorted(range(len(cells)), key=cells.__getitem__)
    return {k: [v[i] for i in order] if isinstance(v, list) else v for k, v in row.items()}


def _assert_same(found: Any, wanted: Any, tolerance: float, where: str) -> None:
    if isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=tolerance, abs=1e-9), where
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], float):
        assert len(found) == len(wanted), where
        limit = tolerance * float(np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=limit, err_msg=where)
    else:
        assert found == wanted, where


def files_of(warehouse: Warehouse) -> dict[str, bytes]:
    """Every committed shard by its path below the root."""
    root = Path(warehouse.root)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.glob("*/*/*.parquet"))}


def temporary(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of this name that all of the session's fixtures share."""
    return tmp_path_factory.getbasetemp() / name
