"""The Kubernetes files: every pod is confined, limited and probed.

Names, ports, secrets and policies fit each other.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import jsonpatch
import jsonschema
import pytest
import yaml

from tests.deploy.deploy_files import (
    CPU_IMAGE,
    DEPLOY,
    GPU_IMAGE,
    containers,
    example,
    image_user,
    load,
    load_all,
    parse,
    pods,
)

FOLDERS = ("kubernetes", "kubernetes-gpu")


def with_gpus():
    """All objects as the patch for GPUs leaves them."""
    overlay = load("kubernetes-gpu/kustomization.yaml")
    (patch,) = overlay["patches"]
    (image,) = overlay["images"]
    changed = []
    for item in load_all("kubernetes"):
        if (item["kind"], item["metadata"]["name"]) == (patch["target"]["kind"], patch["target"]["name"]):
            item = jsonpatch.apply_patch(item, load(f"kubernetes-gpu/{patch['path']}"))
        changed.append(item)
        for container in containers(item):
            if container["image"].startswith(f"{image['name']}:"):
                container["image"] = f"{image['name']}:{image['newTag']}"
    return changed


OBJECTS = {"kubernetes": load_all("kubernetes"), "kubernetes-gpu": with_gpus()}
BOTH = pytest.mark.parametrize("objects", OBJECTS.values(), ids=OBJECTS)


def named(objects, kind, name):
    (found,) = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def labelled_pods(objects):
    """(labels, pod) of every pod, as Kubernetes and the Dask operator label them."""
    for item in objects:
        if item["kind"] == "DaskCluster":
            for part in ("scheduler", "worker"):
                labels = {"dask.org/cluster-name": item["metadata"]["name"], "dask.org/component": part}
                yield labels, item["spec"][part]["spec"]
        elif pods(item):
            spec = item["spec"].get("jobTemplate", item)["spec"]["template"]
            yield spec["metadata"]["labels"], spec["spec"]


def one_container(objects, name):
    (found,) = [
        c for item in objects if item["kind"] != "CronJob" for c in containers(item) if c["name"] == name
    ]
    return found


def environment(container):
    return {pair["name"]: pair.get("value") for pair in container.get("env", ())}


def ports(container):
    return {p["name"]: p["containerPort"] for p in container.get("ports", ())}


def as_pods(item):
    """An object's pods, and its service, as objects of Kubernetes' own kinds."""
    for pod in pods(item):
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
    if item["kind"] == "DaskCluster":
        service = item["spec"]["scheduler"]["service"]
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "service"}, "spec": service}


# ---------------------------------------------------------------------------------------------- schemas


@BOTH
def test_it_is_what_kubernetes_allows(objects):
    validate = pytest.importorskip("kubernetes_validate", reason="the schemas come with kubernetes-validate")
    for item in objects:
        for known in (item,) if item["kind"] != "DaskCluster" else as_pods(item):
            validate.validate(known, validate.latest_version(), strict=True)


def test_the_cluster_is_what_the_dask_operator_allows():
    found = find_spec("dask_kubernetes")
    if found is None:
        pytest.skip("the operator's schema comes with dask-kubernetes")
    (place,) = found.submodule_search_locations
    charts = Path(place, "operator", "deployment", "helm", "dask-kubernetes-operator")
    text = (charts / "crds" / "daskcluster.yaml").read_text(encoding="utf-8")
    (version,) = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]  # a long file
    operator = jsonschema.Draft202012Validator(version["schema"]["openAPIV3Schema"])
    for objects in OBJECTS.values():
        assert not [error.message for error in operator.iter_errors(named(objects, "DaskCluster", "pairx"))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_makes_of_it_what_the_other_tests_look_at(folder, tmp_path):
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl here")
    for name in FOLDERS:
        shutil.copytree(DEPLOY / name, tmp_path / name)
    for path in (tmp_path / "kubernetes").glob("*.env.example"):
        shutil.copy(path, path.with_suffix(""))
    built = subprocess.run(["kubectl", "kustomize", tmp_path / folder], capture_output=True, text=True)
    assert not built.returncode, built.stderr
    found = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(built.stdout)}
    secrets = {name for kind, name in found if kind == "Secret"}
    assert secrets == {"pairx-database", "pairx-storage"}
    for item in OBJECTS[folder]:
        made = found.pop((item["kind"], item["metadata"]["name"]))
        assert made.get("spec") == item.get("spec")
        assert made["metadata"].get("namespace", "pairx") == "pairx"
    assert {kind for kind, _ in found} == {"Secret"}


# ---------------------------------------------------------------------------------------------- every pod


@BOTH
def test_every_pod_is_confined_limited_and_probed(objects):
    seen = 0
    for _, pod in labelled_pods(objects):
        seen += 1
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPath" not in volume for volume in pod["volumes"])
        for container in containers({"spec": pod}):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"])
            assert {"cpu", "memory"} <= set(resources["limits"])
            assert container["startupProbe"]
            assert container["livenessProbe"]
            assert ("readinessProbe" in container) == ("restartPolicy" not in pod), "a run serves nobody"
    assert seen == 6


@BOTH
def test_the_namespace_refuses_what_asks_for_more(objects):
    labels = named(objects, "Namespace", "pairx")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@BOTH
def test_names_within_a_pod_refer_to_each_other(objects):
    for item in objects:
        claimed = {c["metadata"]["name"] for c in item.get("spec", {}).get("volumeClaimTemplates", ())}
        for pod in pods(item):
            volumes = {v["name"] for v in pod["volumes"]} | claimed
            for container in pod["containers"]:
                mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
                assert set(mounts.values()) == volumes
                assert "/tmp" in mounts
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    asked = container.get(probe, {}).get("httpGet", {}).get("port")
                    assert asked in (None, *ports(container))


@BOTH
def test_images_are_those_that_are_built_and_run_as_their_own_user(objects):
    ours = GPU_IMAGE if objects is OBJECTS["kubernetes-gpu"] else CPU_IMAGE
    found = {c["image"] for item in objects for c in containers(item)}
    assert found == {ours, load_image_of_the_database()}
    for _, pod in labelled_pods(objects):
        if pod["containers"][0]["image"] == ours:
            context = pod["securityContext"]
            assert (context["runAsUser"], context["runAsGroup"]) == image_user()
    (image,) = load("kubernetes/kustomization.yaml")["images"]
    assert f"{image['name']}:{image['newTag']}" == CPU_IMAGE


def load_image_of_the_database():
    return load("compose.yaml")["services"]["database"]["image"]


# ---------------------------------------------------------------------------------------------- together


@BOTH
def test_secrets_and_their_keys_exist(objects):
    made = {
        secret["name"]: set().union(*(example(f"kubernetes/{name}.example") for name in secret["envs"]))
        for secret in load("kubernetes/kustomization.yaml")["secretGenerator"]
    }
    used = set()
    for container in (c for item in objects for c in containers(item)):
        used |= {source["secretRef"]["name"] for source in container.get("envFrom", ())}
        for pair in container.get("env", ()):
            if "valueFrom" in pair:
                wanted = pair["valueFrom"]["secretKeyRef"]
                assert wanted["key"] in made[wanted["name"]]
                used.add(wanted["name"])
    assert used == set(made)
    for keys in made.values():
        assert not any(key in str(objects) and "PASSWORD" not in key for key in keys), (
            "values stay in secrets"
        )


@BOTH
def test_services_lead_to_pods_with_such_ports(objects):
    services = [o for o in objects if o["kind"] == "Service"]
    cluster = named(objects, "DaskCluster", "pairx")
    services.append({"spec": cluster["spec"]["scheduler"]["service"]})
    assert len(services) == 3
    for service in services:
        selected = [
            p for labels, p in labelled_pods(objects) if service["spec"]["selector"].items() <= labels.items()
        ]
        (pod,) = selected
        (container,) = pod["containers"]
        for port in service["spec"]["ports"]:
            assert ports(container)[port["targetPort"]] == port["port"]


@BOTH
def test_workers_and_the_run_meet_at_the_operators_service(objects):
    scheduler = one_container(objects, "scheduler")
    worker = parse(one_container(objects, "worker")["args"])
    listens = parse(scheduler["args"])
    assert ports(scheduler) == {
        "tcp-comm": int(listens["port"]),
        "http-dashboard": int(listens["dashboard_address"].strip(":")),
    }
    assert ports(one_container(objects, "worker")) == {
        "health": int(worker["dashboard_address"].strip(":")),
        "worker": int(worker["worker_port"]),
        "nanny": int(worker["nanny_port"]),
    }
    assert worker["name"] == "$(DASK_WORKER_NAME)"
    assert worker["scheduler"] is None, "the operator says where, in DASK_SCHEDULER_ADDRESS"
    run = one_container(objects, "run")
    found = parse(run["args"])
    assert found["cluster"] == f"tcp://pairx-scheduler:{listens['port']}"
    assert found["wait"]
    asked = f"'http://pairx-scheduler:{ports(scheduler)['http-dashboard']}{scheduler['livenessProbe']['httpGet']['path']}'"
    assert asked in run["livenessProbe"]["exec"]["command"][-1]
    for place in (found["catalogue"], found["warehouse"]):
        assert urlsplit(place).scheme == "s3", "what no pod has for itself alone"
    for name in ("run", "worker"):
        assert one_container(objects, name)["envFrom"] == [{"secretRef": {"name": "pairx-storage"}}]


@BOTH
def test_all_report_to_the_prefect_service_which_knows_its_database(objects):
    server = one_container(objects, "server")
    listens = parse(server["args"])
    assert listens["host"] == "0.0.0.0", "others must reach it"
    assert ports(server)["http"] == listens["port"]
    for name in ("run", "worker"):
        api = environment(one_container(objects, name))["PREFECT_API_URL"]
        assert api == f"http://pairx-prefect:{listens['port']}/api"
    database = one_container(objects, "database")
    assert environment(server)["PREFECT_SERVER_DATABASE_HOST"] == "pairx-database"
    assert environment(server)["PREFECT_SERVER_DATABASE_USER"] == environment(database)["POSTGRES_USER"]
    assert environment(server)["PREFECT_SERVER_DATABASE_NAME"] == environment(database)["POSTGRES_DB"]
    by_hand = compose_environment("prefect")
    assert environment(server).keys() == by_hand.keys() - {"HEALTH_URL"}
    assert environment(server)["PREFECT_SERVER_DATABASE_DRIVER"] == by_hand["PREFECT_SERVER_DATABASE_DRIVER"]


def compose_environment(service):
    return load("compose.yaml")["services"][service]["environment"]


@BOTH
def test_the_nightly_run_is_the_run_and_never_meets_itself(objects):
    night, once = (
        named(objects, "CronJob", "pairx-nightly")["spec"],
        named(objects, "Job", "pairx-run")["spec"],
    )
    assert night["jobTemplate"]["spec"] == once
    assert night["concurrencyPolicy"] == "Forbid"
    (deployment,) = load("prefect.yaml")["deployments"]
    assert night["schedule"] == deployment["schedules"][0]["cron"]


def test_a_run_that_ends_early_is_followed_by_another():
    job = named(OBJECTS["kubernetes"], "Job", "pairx-run")["spec"]
    assert job["backoffLimit"] > 0
    assert [rule["action"] for rule in job["podFailurePolicy"]["rules"]] == ["Ignore"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


# ---------------------------------------------------------------------------------------------- network


def admitted(objects):
    """(labels of who calls, labels of who is called, port) for each rule of the policies."""
    for policy in (o["spec"] for o in objects if o["kind"] == "NetworkPolicy"):
        for rule in policy.get("ingress", ()):
            for caller in rule["from"]:
                for port in rule["ports"]:
                    who = caller.get("podSelector", {}).get("matchLabels")
                    yield who, policy["podSelector"]["matchLabels"], port["port"]


def allowed(objects, caller, called, port):
    return any(
        who is not None
        and who.items() <= caller.items()
        and whom.items() <= called.items()
        and port == number
        for who, whom, number in admitted(objects)
    )


@BOTH
def test_nobody_is_let_in_but_who_must(objects):
    closed = named(objects, "NetworkPolicy", "pairx-closed")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress"]}
    by_name = {pod["containers"][0]["name"]: labels for labels, pod in labelled_pods(objects)}
    open_ports = {
        name: ports(pod["containers"][0])
        for _, pod in labelled_pods(objects)
        for name in [pod["containers"][0]["name"]]
    }
    needed = {
        ("server", "database", "postgres"),
        *((caller, "server", "http") for caller in ("run", "worker", "scheduler")),
        *(
            (caller, "scheduler", port)
            for caller in ("run", "worker", "scheduler")
            for port in ("tcp-comm", "http-dashboard")
        ),
        *((caller, "worker", port) for caller in ("worker", "scheduler") for port in ("worker", "nanny")),
    }
    found = {
        (caller, called, port)
        for caller in by_name
        for called in by_name
        for port, number in open_ports[called].items()
        if allowed(objects, by_name[caller], by_name[called], number)
    }
    assert found == needed


# ---------------------------------------------------------------------------------------------- GPUs


def test_gpu_workers_have_one_gpu_and_declare_it():
    plain, gpu = (one_container(OBJECTS[folder], "worker") for folder in FOLDERS)
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert parse(gpu["args"])["resources"] == "GPU=1"
    assert parse(plain["args"]) == parse(gpu["args"]) | {"resources": parse(plain["args"])["resources"]}
    assert "nvidia.com/gpu" not in plain["resources"]["limits"]
