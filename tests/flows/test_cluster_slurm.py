"""Jobs on Slurm: what is submitted, and a run on such jobs.

A stand-in for sbatch starts the jobs as processes of this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from flows.clusters.choice import dask_cluster, require_cluster, worker_count
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings
from tasks.store.warehouse import Warehouse
from tests.finished_runs import Finished
from tests.flows.running import REPOSITORY, run_flow
from tests.small_catalogue import assert_same_rows

dask_jobqueue = pytest.importorskip("dask_jobqueue", reason="needs pip install '.[slurm]'")

SBATCH = """\
#!{python}
import pathlib, shutil, subprocess, sys
home = pathlib.Path(__file__).parent
number = len(list(home.glob("*.sh"))) + 1
script = shutil.copy(sys.argv[1], home / f"{{number}}.sh")
log = (home / f"{{number}}.log").open("wb")
job = subprocess.Popen(["bash", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
(home / f"{{number}}.pid").write_text(str(job.pid))
print("Submitted batch job", number)
"""
SCANCEL = """\
#!{python}
import contextlib, os, pathlib, signal, sys
home = pathlib.Path(__file__).parent
with contextlib.suppress(FileNotFoundError, ProcessLookupError):
    os.killpg(int((home / f"{{sys.argv[1]}}.pid").read_text()), signal.SIGTERM)
(home / f"{{sys.argv[1]}}.cancelled").touch()
"""
REFUSES = "#!/bin/sh\necho 'sbatch: error: invalid partition specified: night' >&2\nexit 1\n"


def command(path: Path, text: str) -> None:
    path.write_text(text.format(python=sys.executable) if "{python}" in text else text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the PATH in which jobs, their logs and their process ids are kept.

    Loopback is the cluster's network.
    """
    home = tmp_path / "slurm"
    home.mkdir()
    command(home / "sbatch", SBATCH)
    command(home / "scancel", SCANCEL)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PREFECT_API_URL", os.environ.get("PREFECT_API_URL", "http://127.0.0.1:1/api"))
    with configured(interface="lo", **{"shared-temp-directory": str(tmp_path)}):
        yield home
    deadline = time.monotonic() + 30
    while left := [job for job in home.glob("*.pid") if lives(int(job.read_text()))]:
        assert time.monotonic() < deadline, f"jobs were left behind: {left}"
        time.sleep(0.1)


def lives(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def configured(**options: Any) -> Any:
    """A block in which a site's configuration of dask-jobqueue says this."""
    return dask.config.set({f"jobqueue.slurm.{key}": value for key, value in options.items()})


def script_for(device: str) -> str:
    """The script of a job on the device, as dask-jobqueue writes it."""
    from flows.clusters.slurm import job_options

    with dask_jobqueue.SLURMCluster(**job_options(device)) as cluster:
        return str(cluster.job_script())


def test_a_job_is_one_worker_with_one_thread(site: Path) -> None:
    script = script_for("cpu")
    directives = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
    assert {"-J pairx", "-n 1", "--cpus-per-task=1", "--mem=4G"} <= set(directives)
    assert not [d for d in directives if d.startswith("--gres")]
    assert "--nthreads 1 " in script
    assert "--nanny" in script
    assert "--resources" not in script
    assert "export OMP_NUM_THREADS=1" in script
    assert f"export PREFECT_API_URL={os.environ['PREFECT_API_URL']}" in script


def test_a_job_on_a_gpu_asks_for_it_and_declares_it(site: Path) -> None:
    script = script_for("cuda")
    assert "#SBATCH --gres=gpu:1\n" in script
    assert "--resources GPU=1" in script


def test_what_the_site_says_stands_in_the_script(site: Path) -> None:
    said = {
        "queue": "night",
        "account": "cats",
        "walltime": "08:00:00",
        "memory": "12GiB",
        "job-cpu": 4,
        "job-extra-directives": ["--gres=gpu:a100:1", "--exclude=n7"],
        "job-script-prologue": ["module load cuda"],
        "name": "leopards",
    }
    with configured(**said):
        script = script_for("cuda")
    directives = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
    assert {"-p night", "-A cats", "-t 08:00:00", "--mem=12G", "--cpus-per-task=4", "-J leopards"} <= set(
        directives
    )
    assert [d for d in directives if d.startswith("--gres")] == ["--gres=gpu:a100:1"]
    assert "--exclude=n7" in directives
    assert "--nthreads 1 " in script
    assert "export OMP_NUM_THREADS=4" in script
    assert (
        script.index("export OMP_NUM_THREADS")
        < script.index("module load cuda")
        < script.index("dask_worker")
    )


def test_strangers_cannot_join_or_give_work(site: Path) -> None:
    script = script_for("cpu")
    assert "tls://" in script
    for option in ("--tls-ca-file", "--tls-cert", "--tls-key"):
        assert option in script


def test_the_number_of_jobs_has_to_be_said() -> None:
    with pytest.raises(SettingsError, match=r"how many jobs[\s\S]*--workers N"):
        worker_count(Settings(cluster="slurm"))
    assert worker_count(Settings(cluster="slurm", workers=7)) == 7


def test_without_sbatch_or_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="sbatch"), dask_cluster(Settings(cluster="slurm", workers=1)):
        pass
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with (
        pytest.raises(SettingsError, match=r"not installed[\s\S]*pip install .*\[slurm\]"),
        dask_cluster(Settings(cluster="slurm", workers=1)),
    ):
        pass


def test_a_prefect_server_that_jobs_can_reach_is_needed(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=r"workers of slurm cannot reach[\s\S]*PREFECT_API_URL"):
        require_cluster(Settings(cluster="slurm", workers=1))
    monkeypatch.setenv("PREFECT_API_URL", "http://login:4200/api")
    require_cluster(Settings(cluster="slurm", workers=1))


def test_what_slurm_says_against_the_jobs_is_the_error(site: Path) -> None:
    command(site / "sbatch", REFUSES)
    with (
        pytest.raises(PairxError, match="does not take the jobs[\\s\\S]*invalid partition specified: night"),
        dask_cluster(Settings(cluster="slurm", workers=1)),
    ):
        pass


def test_jobs_that_never_come_end_the_run(site: Path) -> None:
    command(site / "sbatch", "#!/bin/sh\necho Submitted batch job 1\n")
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "1s"}),
        pytest.raises(PairxError, match="'slurm' has no worker after 1 s[\\s\\S]*squeue"),
        dask_cluster(Settings(cluster="slurm", workers=1)),
    ):
        pass
    assert (site / "1.cancelled").exists()


@pytest.mark.slow
def test_a_run_on_jobs_gives_the_same_rows(
    site: Path, small: Path, undisturbed: Finished, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed.warehouse.root, tmp_path / "w")
    for table in ("scores", "signals", "matches", "relevances", "suspects", "explanations", "reports"):
        shutil.rmtree(tmp_path / "w" / table)
    warehouse = Warehouse(str(tmp_path / "w"))
    summary = run_flow(small, warehouse, "slurm", workers=2)
    assert all(balance.ok for balance in summary.balances)
    assert_same_rows(warehouse, undisturbed.warehouse)
    assert len(list(site.glob("*.sh"))) == len(list(site.glob("*.cancelled"))) == 2
    assert not list(tmp_path.glob(".dask-jobqueue*")), "keys were left behind"
