"""Workers as jobs of Slurm, submitted by dask-jobqueue; the scheduler lives in this process.

A site's own needs (queue, account, wall time, network interface, modules) stand in Dask's configuration,
under ``jobqueue.slurm`` in ``~/.config/dask/jobqueue.yaml``. This module adds only what this pipeline must
have.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flows.clusters.kinds import GPU, Cluster, Device, stopped_in_the_end, thread_environment
from flows.clusters.remote import Hired, asked_device, or_install, wait_for_a_worker
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings

_MEMORY = "4 GiB"
"""Memory of a job where the site's configuration names none: for a worker and its nanny."""
_SUBMITTED_WITH = ("--gres", "--gpus")
"""Directives by which a site's own configuration may already ask for GPUs."""


class Slurm(Hired):
    """One job for each worker: a process with one thread of tasks, with one GPU if GPUs are wanted."""

    words: tuple[str, ...] = ("slurm",)
    unit = "jobs"

    def require(self, settings: Settings) -> None:
        """Raise `SettingsError` without dask-jobqueue, without sbatch, and without a number of jobs."""
        super().require(settings)
        with or_install("slurm"):
            import dask_jobqueue  # noqa: F401
        if shutil.which("sbatch") is None:
            raise SettingsError(
                "cluster 'slurm' needs the command sbatch, which is not on the PATH",
                "run on a node from which jobs are submitted, or use another cluster",
            )

    @contextmanager
    def start(self, wanted: str, settings: Settings) -> Iterator[Cluster]:
        """A cluster of jobs; the block begins when the first has started, and the others join later."""
        from dask_jobqueue import SLURMCluster

        count, device = settings.workers or self.workers(), asked_device(settings)
        cluster = SLURMCluster(**job_options(device))
        with stopped_in_the_end(cluster, wanted, device) as found:
            _submit(cluster, count)
            wait_for_a_worker(
                found, "see `squeue --me` and the logs of the jobs (jobqueue.slurm.log-directory)"
            )
            yield replace(found, workers=count)


def _submit(cluster: Any, jobs: int) -> None:
    """Submit the jobs; raises `PairxError` with sbatch's message if it refuses."""

    async def submitted() -> None:
        # `scale` submits in the background. There a refusal would only be a traceback in a log, and the run
        # would wait for ever.
        for _ in range(jobs):
            cluster.worker_spec.update(cluster.new_worker_spec())
        await cluster._correct_state()

    try:
        cluster.sync(submitted)
    except (OSError, RuntimeError, ValueError) as error:
        raise PairxError(
            f"Slurm does not take the jobs: {' '.join(str(error).split())}",
            "mend jobqueue.slurm in Dask's configuration, then run again",
        ) from error


def job_options(device: Device) -> dict[str, Any]:
    """Options of a `SLURMCluster`: the site's configuration, and what the workers of this pipeline need."""
    import dask

    site: Mapping[str, Any] = dask.config.get("jobqueue.slurm")
    cpus = int(site.get("job-cpu") or site.get("cores") or 1)
    directives = list(site.get("job-extra-directives") or ())
    arguments = list(site.get("worker-extra-args") or ())
    if device == "cuda":
        arguments += ["--resources", f"{GPU}=1"]
        if not any(directive.startswith(_SUBMITTED_WITH) for directive in directives):
            directives.append("--gres=gpu:1")
    named = site.get("name")
    return {
        "job_name": named if named != "dask-worker" else "pairx",
        # One thread of tasks, whose torch may use all cores of the job.
        "cores": 1,
        "processes": 1,
        "job_cpu": cpus,
        "memory": site.get("memory") or _MEMORY,
        "worker_extra_args": arguments,
        "job_extra_directives": directives,
        "job_script_prologue": [*_exports(cpus), *(site.get("job-script-prologue") or ())],
        "scheduler_options": {"dashboard_address": ":0", **(site.get("scheduler-options") or {})},
        # Whoever reaches a Dask scheduler can run code as its owner, and many users share a cluster's
        # network.
        "security": True,
        "shared_temp_directory": site.get("shared-temp-directory") or os.getcwd(),
    }


def _exports(cpus: int) -> Sequence[str]:
    """Lines of the job's script that set its environment.

    Sites that submit with ``--export=NONE`` pass no environment on.
    """
    environment = thread_environment(cpus)
    if url := os.environ.get("PREFECT_API_URL"):
        environment["PREFECT_API_URL"] = url
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
