"""The run log: rows of `runs`, the sums that must balance, and package versions."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import duckdb
import pyarrow as pa

from schemas.errors import PairxError
from schemas.stages import EMBED, ITEM_KEYS, STAGES, StageFacts
from schemas.tables.registry import TABLES
from schemas.views.install import FROM_SETTINGS
from tasks.costs import PARTS, limit_in_words, shares_in_words
from tasks.job import Job
from tasks.runs.remembered import facts_of
from tasks.shards import ShardResult, peak_bytes

_PACKAGES = (
    "pairx-pipeline", "torch", "torchvision", "timm", "zennit", "kornia", "opencv-python-headless", "pillow", "numpy",
    "pyarrow", "duckdb", "prefect", "dask", "distributed",
)  # fmt: skip

_NO_ACCIDENT = 5


def versions() -> dict[str, str]:
    """Versions of the packages whose code makes the numbers or carries them."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass(frozen=True)
class StageLog:
    """What one stage did in this run: shards and rows written, wall, work and engine seconds.

    `items` were to be processed; `failed` of them have a row in `failures`. `lost` of them have none,
    because their shards broke off.
    """

    stage: str
    shards: int = 0
    rows: int = 0
    failed: int = 0
    seconds: float = 0.0
    work_seconds: float = 0.0
    engine_seconds: float = 0.0
    peak_bytes: int = 0
    devices: tuple[str, ...] = ()
    """Kinds of the devices that computed, sorted."""
    items: int = 0
    lost: int = 0
    worker_seconds: float = 0.0
    """How long shards kept their workers, in all; `parts` are where that time went."""
    processor_seconds: float = 0.0
    """Of workers; of a stage that the driver does itself, of the driver."""
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float | None:
        """Items per second of wall time; None where there were none."""
        return self.items / self.seconds if self.items and self.seconds > 0 else None

    @property
    def limit(self) -> str | None:
        """What took most of the workers' time, in words."""
        return limit_in_words(self.parts, self.worker_seconds)

    @property
    def where(self) -> str:
        """Shares of the workers' time, in words."""
        return shares_in_words(self.parts, self.worker_seconds)

    @property
    def done(self) -> int:
        """Items that came through."""
        return max(0, self.items - self.failed - self.lost)

    @classmethod
    def of(
        cls, stage: str, results: Sequence[ShardResult], seconds: float, items: int = 0, lost: int = 0
    ) -> StageLog:
        """Sum the results of a stage's shards."""
        return cls(
            stage,
            len(results),
            sum(r.rows for r in results),
            sum(r.failed for r in results),
            seconds,
            sum(r.seconds for r in results),
            sum(r.engine_seconds for r in results),
            max((r.peak_bytes for r in results), default=0),
            tuple(sorted({r.device for r in results if r.device})),
            items,
            lost,
            sum(r.worker_seconds for r in results),
            sum(r.processor_seconds for r in results),
            _summed(r.parts for r in results),
        )


def _summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in parts:
        for name, seconds in one.items():
            found[name] = found.get(name, 0.0) + seconds
    return {name: round(found[name], 3) for name in PARTS if name in found}


def limit_of_embedding(stages: Sequence[StageLog]) -> str | None:
    """What limited embedding, in words; None where nothing was embedded."""
    return next((f"embed: {s.limit}" for s in stages if s.stage == EMBED.name and s.limit), None)


def devices_of(stages: Sequence[StageLog]) -> list[str]:
    """Kinds of all devices that a run's stages computed on, sorted."""
    return sorted({device for stage in stages for device in stage.devices})


@dataclass(frozen=True)
class Balance:
    """One sum that must add up: everything that went in either came out or failed with a reason."""

    name: str
    planned: int
    done: int
    done_as: str
    failed: int

    @property
    def ok(self) -> bool:
        """Whether nothing was lost."""
        return self.planned == self.done + self.failed

    def __str__(self) -> str:
        sign = "=" if self.ok else "≠"
        return f"{self.name} {self.planned} {sign} {self.done_as} {self.done} + failed {self.failed}"


def balances(connection: duckdb.DuckDBPyConnection, ran: Collection[str] | None = None) -> list[Balance]:
    """The sum of every counted stage over the current photos or pairs, counted in the tables.

    With `ran`, only of those stages.
    """
    counted = (stage for stage in STAGES.values() if stage.counted_as)
    return [_balance(connection, stage) for stage in counted if ran is None or stage.name in ran]


def balances_with_outside(
    connection: duckdb.DuckDBPyConnection, listed: Sequence[str], retrieved: int
) -> list[Balance]:
    """Sums of what the tables hold against what a run knows from elsewhere.

    The tables alone cannot tell that all rows are gone. `listed` are the ids of the catalogue's photos,
    `retrieved` is the number of pairs that the run found stored or stored itself.
    """
    return [_taken_in(connection, listed), _kept(connection, retrieved)]


def _taken_in(connection: duckdb.DuckDBPyConnection, listed: Sequence[str]) -> Balance:
    connection.register("listed", pa.table({"photo_id": pa.array(listed, pa.string())}))
    done, failed = connection.execute(
        """
        SELECT count(*) FILTER (f.item IS NULL), count(f.item)
        FROM photos SEMI JOIN listed USING (photo_id)
        LEFT JOIN (SELECT DISTINCT item FROM failures WHERE stage = 'ingest') AS f ON f.item = photo_id
        """
    ).fetchall()[0]
    connection.unregister("listed")
    return Balance("catalogue", len(listed), done, "taken in", failed)


def _kept(connection: duckdb.DuckDBPyConnection, retrieved: int) -> Balance:
    stored = connection.execute("SELECT count(DISTINCT pair_id) FROM run_pairs").fetchall()[0][0]
    return Balance("retrieved", retrieved, stored, "stored", 0)


def refuse_all_failed(sums: Sequence[Balance], stages: Sequence[StageLog]) -> None:
    """Raise `PairxError` where all there is of something failed, or many items of one stage.

    A few new photos that all fail may be an accident. Many have a common cause: a missing folder, a disk,
    a setting.
    """
    nothing = [f"none of {s.planned} {s.name} could be {s.done_as}" for s in sums if s.failed and not s.done]
    nothing += [
        f"{log.stage}: all {log.items} failed" for log in stages if log.failed >= max(log.items, _NO_ACCIDENT)
    ]
    if nothing:
        raise PairxError(
            "; ".join(nothing),
            '`pairx sql "SELECT * FROM failures"` and the report tell why; mend the cause, then run again with --retry-failed',
        )


def _balance(connection: duckdb.DuckDBPyConnection, stage: StageFacts) -> Balance:
    assert stage.failing
    assert stage.counted_as
    items, table = stage.failing.items, stage.tables[-1]
    current, columns = f"{items}s", TABLES[table].schema.names
    key = [name for name in ITEM_KEYS[items] if name in columns]
    layer = "JOIN current_run USING (layer)" if "layer" in columns else ""
    planned, done, failed = connection.execute(
        f"""
        SELECT count(*), count(d.{key[0]}), count(*) FILTER (d.{key[0]} IS NULL AND f.item IS NOT NULL)
        FROM {current} AS c
        LEFT JOIN (SELECT DISTINCT {", ".join(key)} FROM run_{table} {layer}) AS d USING ({", ".join(key)})
        LEFT JOIN (SELECT DISTINCT item FROM failures WHERE list_contains($stages, stage)) AS f ON f.item = c.{key[0]}
        """,  # noqa: S608  # names from code
        {"stages": _up_to(stage)},
    ).fetchall()[0]
    return Balance(current, planned, done, stage.counted_as, failed)


def _up_to(stage: StageFacts) -> list[str]:
    """The stage and those before it that process the same items; what failed there never came here."""
    assert stage.failing
    names = list(STAGES)
    before = [STAGES[name] for name in names[: names.index(stage.name) + 1]]
    return [s.name for s in before if s.failing and s.failing.items == stage.failing.items]


def new_run_id() -> str:
    """The id of a run that starts now; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"


@dataclass
class RunLog:
    """One run's rows of `runs`: started, then finished or failed."""

    job: Job
    run_id: str = field(default_factory=new_run_id)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    remarks: tuple[str, ...] = ()
    """What the catalogue was taken for, in sentences."""
    oddities: tuple[str, ...] = ()
    """Those of the remarks that warn of what looks odd in it."""
    left: list[str] = field(default_factory=list)
    """What a run over the same catalogue would have to do, in words."""
    _worked: float = field(default_factory=time.process_time)

    def processor_seconds(self, stages: Sequence[StageLog]) -> float:
        """Of this process since the run began, and of what workers did for it; programs' starts do not count."""
        return time.process_time() - self._worked + sum(s.processor_seconds for s in stages if s.shards)

    def columns(self, state: str | None = None) -> dict[str, Any]:
        """The columns of `current_run` for this run, so that its views can exist before it is over."""
        job = self.job
        prints = {f"{k}_fingerprint": v for k, v in vars(job.prints).items()}
        return {
            "run_id": self.run_id,
            **prints,
            "layer": job.layers[0],
            "top_k": job.settings.top_k,
            "same_name_k": job.settings.same_name_k,
            **{name: getattr(job.settings, name) for name in FROM_SETTINGS},
            "state": state,
        }

    def write(
        self,
        status: str,
        state: str | None = None,
        stages: Sequence[StageLog] = (),
        counts: Mapping[str, int] | None = None,
        message: str | None = None,
        snapshot: str | None = None,
        basis: int | None = None,
        standing: str | None = None,
        report_run: str | None = None,
    ) -> None:
        """Append this run's row with the given status; the columns of `runs` say what the others are."""
        columns = {k: v for k, v in self.columns(state).items() if k not in FROM_SETTINGS}
        row = {
            **columns,
            "status": status,
            "at": datetime.now(UTC),
            "settings": self.job.settings.model_dump_json(),
            "versions": json.dumps(versions()),
            "counts": json.dumps(dict(counts)) if counts is not None else None,
            "timings": json.dumps({s.stage: round(s.seconds, 3) for s in stages}) if stages else None,
            "stages": json.dumps({s.stage: asdict(s) for s in stages}) if stages else None,
            "driver_peak_bytes": peak_bytes(),
            "processor_seconds": round(self.processor_seconds(stages), 3),
            "devices": devices_of(stages) or None,
            "message": message,
            "remarks": list(self.remarks) or None,
            "snapshot": snapshot,
            "basis": basis,
            "standing": standing,
            "report_run": report_run,
            "engine": facts_of(self.job) if status == "finished" else None,
        }
        self.job.warehouse.write("runs", self.job.prints.suspects, f"{self.run_id}-{status}", [row])
