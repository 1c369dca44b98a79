"""A kind of cluster that the package does not know, registered from outside, is one like any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.clusters import choice as cluster
from flows.clusters.choice import dask_cluster, pairs_per_shard, resolve_kind, worker_count
from flows.clusters.kinds import Cluster
from schemas.errors import SettingsError
from schemas.settings import Settings

TOY = "toy://here"


class Toy:
    """Threads of this process behind a scheduler in memory."""

    words = ("toy://",)
    usage = "toy://NAME in this process"
    pairs_per_shard = 7
    devices = ("cpu",)
    foreign = False

    def fits(self) -> bool:
        return False

    def workers(self) -> int:
        return 3

    def require(self, settings: Settings) -> None:
        pass

    @contextmanager
    def start(self, wanted: str, settings: Settings) -> Iterator[Cluster]:
        from distributed import LocalCluster

        count = settings.workers or self.workers()
        with LocalCluster(n_workers=count, processes=False, dashboard_address=None) as toy:
            yield Cluster(toy.scheduler_address, "toy", len(toy.workers))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "KINDS", [*cluster.KINDS, Toy()])


def test_its_address_is_a_setting_and_says_how_the_work_is_cut() -> None:
    assert resolve_kind(Settings(cluster=TOY)) == TOY
    assert worker_count(Settings(cluster=TOY)) == 3
    assert pairs_per_shard(Settings(cluster=TOY)) == 7
    assert pairs_per_shard(Settings(cluster=TOY, pairs_per_shard=5)) == 5


def test_work_runs_on_it() -> None:
    from distributed import Client

    with dask_cluster(Settings(cluster=TOY, workers=2)) as found, Client(found.address) as client:
        assert (found.kind, found.workers) == ("toy", 2)
        assert client.gather(client.map(pow, [2, 3], [5, 2])) == [32, 9]


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_the_help_offers_it(command: str) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "or toy://NAME in this process" in " ".join(shown.replace("│", " ").split())


def test_whoever_errs_is_told_of_it() -> None:
    with pytest.raises(
        SettingsError, match="use auto, local, cuda, slurm, kubernetes, tcp://HOST:PORT or toy://NAME"
    ):
        resolve_kind(Settings(cluster="pbs"))


def test_auto_takes_it_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "fits", lambda self: True)
    assert resolve_kind(Settings()) == "toy://"
