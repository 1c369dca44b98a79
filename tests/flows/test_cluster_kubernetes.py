"""The DaskCluster that is asked for on Kubernetes, up to the manifest; no API server takes it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
import yaml

from flows.clusters.choice import dask_cluster, worker_count
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings
from tests.flows.running import REPOSITORY

MANIFEST = REPOSITORY / "deploy" / "kubernetes" / "dask-cluster.yaml"
API = "http://prefect:4200/api"


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", API)


def needs_dask_kubernetes() -> None:
    pytest.importorskip("dask_kubernetes", reason="needs pip install '.[kubernetes]'")


def manifest(device: str, workers: int = 3, **site: Any) -> dict[str, Any]:
    """The manifest under a site's configuration of dask-kubernetes."""
    from flows.clusters.kubernetes import cluster_spec

    needs_dask_kubernetes()
    with dask.config.set({f"kubernetes.{key}": value for key, value in site.items()}):
        return cluster_spec(workers, device)


def worker_of(spec: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec["spec"]["worker"]["spec"]["containers"]
    return container


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_image_alone_makes_a_cluster(device: str) -> None:
    spec = manifest(
        device, image="registry/pairx:1", env={"AWS_REGION": "eu"}, resources={"limits": {"memory": "5Gi"}}
    )
    assert (spec["kind"], spec["apiVersion"]) == ("DaskCluster", "kubernetes.dask.org/v1")
    assert spec["metadata"]["name"].startswith("pairx-")
    assert (
        spec["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == spec["metadata"]["name"]
    )
    assert spec["spec"]["worker"]["replicas"] == 3
    worker = worker_of(spec)
    assert worker["image"] == "registry/pairx:1"
    assert variables(worker) == {"AWS_REGION": "eu", "PREFECT_API_URL": API}
    assert worker["args"][worker["args"].index("--nthreads") + 1] == "1"
    limits = {"memory": "5Gi"} | ({"nvidia.com/gpu": 1} if device == "cuda" else {})
    assert worker["resources"]["limits"] == limits
    assert ("--resources" in worker["args"]) == (device == "cuda")
    assert "nvidia.com/gpu" not in spec["spec"]["scheduler"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    "given", [str(MANIFEST), yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))], ids=["path", "itself"]
)
def test_the_manifest_of_the_site_keeps_what_it_says(given: Any) -> None:
    before = deepcopy(yaml.safe_load(MANIFEST.read_text(encoding="utf-8")))
    spec = manifest("cuda", workers=9, **{"custom-cluster-spec": given})
    assert spec["metadata"] == before["metadata"]
    assert spec["spec"]["scheduler"] == before["spec"]["scheduler"]
    assert spec["spec"]["worker"]["replicas"] == 9
    worker, was = worker_of(spec), worker_of(before)
    assert worker["volumeMounts"] == was["volumeMounts"]
    assert variables(worker)["PREFECT_API_URL"] == variables(was).get("PREFECT_API_URL", API)
    assert worker["args"][: len(was["args"])] == was["args"]
    assert worker["args"].count("--nthreads") == worker["args"].count("--resources") == 1
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert given == (str(MANIFEST) if isinstance(given, str) else before), (
        "the site's configuration was changed"
    )


def test_what_is_no_manifest_or_no_image_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"holds this package[\s\S]*kubernetes\.image"):
        manifest("cpu")
    with pytest.raises(SettingsError, match="cannot be read"):
        manifest("cpu", **{"custom-cluster-spec": str(tmp_path / "none.yaml")})
    for text in ("[1, 2]", "kind: DaskCluster", "a: [", "!!python/object/apply:os.getcwd []"):
        (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(SettingsError, match="custom-cluster-spec"):
            manifest("cpu", **{"custom-cluster-spec": str(tmp_path / "bad.yaml")})


def test_the_number_of_pods_has_to_be_said() -> None:
    with pytest.raises(SettingsError, match=r"how many pods[\s\S]*--workers N"):
        worker_count(Settings(cluster="kubernetes"))


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dask_kubernetes", "dask_kubernetes.operator"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(SettingsError, match=r"not installed[\s\S]*pip install .*\[kubernetes\]"),
        dask_cluster(Settings(cluster="kubernetes", workers=1)),
    ):
        pass


class Kept:
    """Stands in for a KubeCluster: a scheduler with threads for workers, under the manifest's name."""

    asked: dict[str, Any]
    closed = False

    def __init__(self, **options: Any) -> None:
        from distributed import LocalCluster

        Kept.asked, Kept.closed = options, False
        self.name = options["custom_cluster_spec"]["metadata"]["name"]
        self._inner = LocalCluster(n_workers=1, processes=False, dashboard_address=None)
        self.scheduler_address = self._inner.scheduler_address

    def __exit__(self, *_: object) -> None:
        self._inner.close()
        Kept.closed = True


@contextmanager
def kube_cluster(monkeypatch: pytest.MonkeyPatch, takes: Any) -> Any:
    needs_dask_kubernetes()
    from dask_kubernetes import operator

    monkeypatch.setattr(operator, "KubeCluster", takes)
    with dask.config.set({"kubernetes.image": "pairx"}):
        yield


def test_the_cluster_is_made_for_the_run_and_closed_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        kube_cluster(monkeypatch, Kept),
        dask_cluster(Settings(cluster="kubernetes", workers=4, device="cuda")) as found,
    ):
        assert (found.kind, found.workers, found.device) == ("kubernetes", 4, "cuda")
        assert not Kept.closed
    assert Kept.closed
    assert worker_of(Kept.asked["custom_cluster_spec"])["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert str(Kept.asked["create_mode"]).endswith("CREATE_ONLY")


def test_what_the_api_says_against_it_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> SimpleNamespace:
        raise ConnectionError("no configuration file found")

    with (
        kube_cluster(monkeypatch, refuse),
        pytest.raises(
            PairxError, match="does not make the Dask cluster pairx-.*no configuration file[\\s\\S]*kubectl"
        ),
        dask_cluster(Settings(cluster="kubernetes", workers=1)),
    ):
        pass
