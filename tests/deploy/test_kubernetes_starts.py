"""The pods of the Kubernetes files, started here word by word beside a store.

Their probes pass, and the run ends well.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.deploy.deploy_files import compose, example, load_all, pods
from tests.deploy.started import SECONDS, catalogue, stack

pytestmark = pytest.mark.slow

COMPOSE = {"PAIRX_DATA": "/", **example("compose.env.example")}
SECRETS = {
    "pairx-database": example("kubernetes/database.env.example"),
    "pairx-storage": example("kubernetes/storage.env.example")
    | {key: value for key, value in COMPOSE.items() if key.startswith("AWS_")}
    | {"AWS_ENDPOINT_URL": "http://store:8333"},
}
NAMES = {"server": "pairx-prefect", "database": "pairx-database", "scheduler": "pairx-scheduler"}
"""Containers that services lead to, by the service's name."""
BY_OPERATOR = {
    "worker": {"DASK_WORKER_NAME": "pairx-worker-1", "DASK_SCHEDULER_ADDRESS": "tcp://pairx-scheduler:8786"}
}
UPLOAD = """
import fsspec
store = fsspec.filesystem("s3")
store.makedirs("pairx")
store.put("/catalogue/", "pairx/catalogue/", recursive=True)
"""


def probes(pod):
    """The commands of a pod's probes; what the kubelet asks by HTTP is asked from the pod itself."""
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    found = []
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(name, {})
        if "exec" in probe:
            found.append(probe["exec"]["command"])
        elif probe:
            url = f"http://127.0.0.1:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
            seconds = probe["timeoutSeconds"]
            found.append(
                ["python", "-c", f"import urllib.request as u; u.urlopen({url!r}, timeout={seconds})"]
            )
    return found


def test_pods_start_and_the_run_ends_well(tmp_path):
    everyone = {
        pod["containers"][0]["name"]: pod
        for item in load_all("kubernetes")
        if item["kind"] != "CronJob"
        for pod in pods(item)
    }
    with stack(tmp_path, ["store", "upload", *(NAMES.get(name, name) for name in everyone)]) as services:

        def container(name):
            by_operator = BY_OPERATOR.get(name, {})
            return services.of_kubernetes(NAMES.get(name, name), everyone[name], SECRETS, by_operator)

        services.start_service("store", compose(COMPOSE))
        run = container("run")
        data = {"/catalogue": str(catalogue(tmp_path / "catalogue"))}
        upload = dataclasses.replace(
            run, name="upload", argv=("python", "-c", UPLOAD), readable=run.readable | data
        )
        services.finish(upload)
        for name in ("database", "server", "scheduler", "worker"):
            services.start_well(container(name), *probes(everyone[name]))
        services.start_well(run, probes(everyone["run"])[-1])
        code = services.machine.ended(run.name, SECONDS)
        assert code is not None, services.machine.log(run.name)[-3000:]
        if code:
            # As its job does: another pod tries again what was not finished.
            services.machine.stop(run.name)
            services.finish(run)
