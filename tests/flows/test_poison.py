"""One photo whose processing ends its worker, or never ends.

It alone fails, by its name, and everything else goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, WorkerPlugin

from flows.work import stage_runner as stages
from flows.work.stage_runner import Try
from tasks.check.findings import check
from tasks.store.warehouse import Warehouse
from tests.flows.running import run_flow, shards_of
from tests.small_catalogue import rewrite, rows_of


class Poison(WorkerPlugin):
    """What is done where the bytes of one photo are decoded for a stage.

    It is on every worker, also on those that replace dead ones.
    """

    name = "poison"

    def __init__(self, module: str, data: bytes, deed: str) -> None:
        self.module, self.data, self.deed = module, data, deed

    def setup(self, worker: Any) -> None:
        from importlib import import_module

        module = import_module(self.module)
        self.decode = module.decode_photo
        module.decode_photo = self.act

    def teardown(self, worker: Any) -> None:
        from importlib import import_module

        import_module(self.module).decode_photo = self.decode

    def act(self, data: bytes, *rest: Any) -> Any:
        if data == self.data:
            if self.deed == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.decode(data, *rest)


@contextmanager
def poisoned(scheduler: str, module: str, data: bytes, deed: str) -> Iterator[None]:
    with Client(scheduler) as client:
        client.register_plugin(Poison(module, data, deed))
        try:
            yield
        finally:
            client.unregister_worker_plugin("poison")


@pytest.fixture
def few(small: Path, tmp_path: Path) -> tuple[Path, str, bytes]:
    """A catalogue of a few readable photos, the id of one of them and its bytes."""
    folder = Path(shutil.copytree(small.parent, tmp_path / "catalogue"))
    metadata = rewrite(folder / small.name, "few.csv", lambda rows: rows[:9])
    guilty = "D00004"
    (data,) = {(folder / "images" / f"{guilty}.jpg").read_bytes()}
    return metadata, guilty, data


def test_parts_of_a_try_are_in_order_and_have_their_share_of_the_time() -> None:
    class Shard:
        def __init__(self, letters: str) -> None:
            self.letters = letters

        def part(self, items: slice) -> Shard:
            return Shard(self.letters[items])

    left, found = [Try((3,), Shard("abcdefg"), 7000.0)], []
    while left:
        one = left.pop(0)
        size = len(one.shard.letters)
        assert one.seconds == pytest.approx(1000 * size)
        if size == 1:
            assert one.parts(1) == [one]
            found.append((one.key, one.shard.letters))
        else:
            left += one.parts(size)
    assert "".join(letter for _, letter in sorted(found)) == "abcdefg"
    assert Try((0,), Shard("ab"), 30.0).parts(2)[0].seconds == 60


@pytest.mark.parametrize(
    ("module", "deed", "stage"),
    [
        pytest.param("tasks.stages.ingest", "die", "ingest", marks=pytest.mark.slow),
        pytest.param("tasks.photo_files", "die", "embed", marks=pytest.mark.slow),
        pytest.param("tasks.stages.ingest", "hang", "ingest", marks=pytest.mark.slow),
    ],
)
def test_one_photo_that_ends_its_workers_fails_alone(
    few: tuple[Path, str, bytes],
    scheduler: str,
    tmp_path: Path,
    module: str,
    deed: str,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metadata, guilty, data = few
    monkeypatch.setattr(stages, "_LEAST_SECONDS", 5.0)
    warehouse = Warehouse(str(tmp_path / "w"))
    minutes = 0.1 if deed == "hang" else 60.0
    with poisoned(scheduler, module, data, deed):
        summary = run_flow(metadata, warehouse, scheduler, shard_minutes=minutes)
        failures = rows_of(warehouse, "failures").values()
        assert [(f["stage"], f["item"], f["code"]) for f in failures if f["code"] == "worker_died"] == [
            (stage, guilty, "worker_died")
        ]
        assert all(balance.ok for balance in summary.balances)
        others = {p for p, row in rows_of(warehouse, "photos").items() if row["chip_id"]} - {(guilty,)}
        assert {k[:1] for k in rows_of(warehouse, "embeddings")} == others
        assert len(rows_of(warehouse, "scores")) > 0
        # The next night it is left alone, and costs nothing.
        again = run_flow(metadata, warehouse, scheduler, shard_minutes=minutes)
        assert set(shards_of(again).values()) == {0}
    assert not check(warehouse).problems
