"""The benchmark of large catalogues on a small one: its nights are nights, and cost what is new."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schemas.settings import Settings
from tasks.job import prepare_job
from tasks.store.warehouse import Warehouse
from tests.benchmarks import scale


def test_nights_of_generated_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    retrieve = scale.RETRIEVE.work
    monkeypatch.setattr(
        scale, "retrieving", lambda job, shard: (asked.append(len(shard.rows)), retrieve(job, shard))[1]
    )
    chosen = Settings(cluster="local", photos_per_shard=100, pairs_per_shard=500)
    job = prepare_job(Warehouse(str(tmp_path / "w")), chosen)
    generated = scale.Generated(16)
    entries = [scale.entry(i) for i in range(300)]
    more = [*entries, *(scale.entry(300 + i) for i in range(10))]
    renamed = [replace(e, identity="animal-000001") if i == 44 else e for i, e in enumerate(more)]
    first = scale.night(job, entries, generated, idle=False)
    assert asked == [300]
    assert first["pairs"] > 300
    second = scale.night(job, more, generated, idle=False)
    assert asked == [300, 10]
    assert second["pairs"] > first["pairs"]
    nothing = scale.night(job, more, generated, idle=True)
    assert len(asked) == 2
    assert (nothing["pairs"], list(nothing["stages"])) == (second["pairs"], ["ingest"])
    scale.night(job, renamed, generated, idle=False)
    assert len(asked) == 3
    assert 1 <= asked[2] < 60
    assert {len(scale.ask(job.warehouse, question)) for question in scale.QUESTIONS} == {2}
