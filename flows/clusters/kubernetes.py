"""Workers as pods, kept by Dask's Kubernetes operator for the length of a run.

A site's own needs (namespace, image, volumes, limits) stand in Dask's configuration, under ``kubernetes`` in
``~/.config/dask/kubernetes.yaml``: either a whole ``DaskCluster`` manifest by `custom-cluster-spec`, or only
image, environment and resources. This module adds only what this pipeline must have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from flows.clusters.kinds import GPU, Cluster, Device, stopped_in_the_end
from flows.clusters.remote import Hired, asked_device, or_install, wait_for_a_worker
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings

_GPU_LIMIT = "nvidia.com/gpu"
_DASK_IMAGE = "ghcr.io/dask/dask"
"""Dask's own image, the default of its configuration; it does not hold this package."""


class Kubernetes(Hired):
    """One pod for each worker, with one GPU each if GPUs are wanted; the scheduler is a pod, too."""

    words: tuple[str, ...] = ("kubernetes",)
    unit = "pods"

    def require(self, settings: Settings) -> None:
        """Raise `SettingsError` without dask-kubernetes or a number of pods.

        The same where the configuration names neither a manifest nor an image that holds this
        package.
        """
        super().require(settings)
        cluster_spec(settings.workers or self.workers(), asked_device(settings))

    @contextmanager
    def start(self, wanted: str, settings: Settings) -> Iterator[Cluster]:
        """A `DaskCluster` resource, deleted at the end; the block begins with the first worker."""
        from dask_kubernetes.operator import KubeCluster
        from dask_kubernetes.operator.kubecluster.kubecluster import CreateMode

        count, device = settings.workers or self.workers(), asked_device(settings)
        spec = cluster_spec(count, device)
        try:
            cluster = KubeCluster(custom_cluster_spec=spec, create_mode=CreateMode.CREATE_ONLY, quiet=True)
        except Exception as error:  # of the API's client, its transport, and the operator's own
            raise PairxError(
                f"Kubernetes does not make the Dask cluster {spec['metadata']['name']}: {type(error).__name__}: {error}",
                "see that kubectl reaches the cluster, that Dask's operator runs there, and that no cluster of that name is left",
            ) from error
        with stopped_in_the_end(cluster, wanted, device) as found:
            wait_for_a_worker(found, "see `kubectl get pods` and the logs of those that wait or fail")
            yield replace(found, workers=count)


def cluster_spec(workers: int, device: Device) -> dict[str, Any]:
    """The `DaskCluster` manifest: the site's, with `workers` workers and what this pipeline needs.

    Raises `SettingsError` where Dask's configuration names neither a manifest nor an image that holds
    this package.
    """
    import dask

    with or_install("kubernetes"):
        import dask_kubernetes  # noqa: F401  # enters the defaults of its configuration
    site: Mapping[str, Any] = dask.config.get("kubernetes")
    spec = _site_manifest(site["custom-cluster-spec"]) if site["custom-cluster-spec"] else _from_image(site)
    try:
        worker = spec["spec"]["worker"]
        containers = worker["spec"]["containers"]
        container = next((c for c in containers if c.get("name") == "worker"), containers[0])
        spec["metadata"]["name"], worker["replicas"] = str(spec["metadata"]["name"]), workers
        _complete(container, device)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise SettingsError(
            f"kubernetes.custom-cluster-spec is no DaskCluster with a worker's container: {type(error).__name__}: {error}",
            "start from deploy/kubernetes/dask-cluster.yaml",
        ) from error
    return spec


def _site_manifest(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """A manifest given by its path, or in the configuration itself."""
    import yaml

    if not isinstance(given, str):
        return deepcopy(dict(given))
    try:
        read = yaml.safe_load(Path(given).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"kubernetes.custom-cluster-spec, {given}, cannot be read: {error}",
            "name a DaskCluster manifest, such as deploy/kubernetes/dask-cluster.yaml",
        ) from error
    return read if isinstance(read, dict) else {}


def _from_image(site: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest made of the image, environment and resources of the configuration."""
    from dask_kubernetes.operator import make_cluster_spec

    image = str(site["image"])
    if image.startswith(_DASK_IMAGE):
        raise SettingsError(
            f"cluster 'kubernetes' needs an image that holds this package, and Dask's configuration names {image}",
            "set kubernetes.image to one made by deploy/Dockerfile, or kubernetes.custom-cluster-spec to a manifest",
        )
    return make_cluster_spec(
        name=f"pairx-{uuid4().hex[:10]}",
        image=image,
        resources=deepcopy(site["resources"]) or None,
        env=deepcopy(site["env"]),
        worker_command=site["worker-command"],
        scheduler_service_type=site["scheduler-service-type"],
    )


def _complete(container: dict[str, Any], device: Device) -> None:
    """Add what a worker needs to its container: one thread of tasks and a Prefect API.

    With `cuda` also a GPU, which it declares to Dask.
    """
    arguments = container["args"]
    if "--nthreads" not in arguments:
        arguments += ["--nthreads", "1"]
    environment = container["env"] = list(container.get("env") or ())
    url = os.environ.get("PREFECT_API_URL")
    if url and not any(variable["name"] == "PREFECT_API_URL" for variable in environment):
        environment.append({"name": "PREFECT_API_URL", "value": url})
    if device == "cuda":
        resources = container["resources"] = dict(container.get("resources") or {})
        resources["limits"] = {_GPU_LIMIT: 1, **(resources.get("limits") or {})}
        if "--resources" not in arguments:
            arguments += ["--resources", f"{GPU}=1"]
