"""What is deployed names only what exists: flows, parameters, commands, options, files, services and ports."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = "pairx"


def load(name):
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def kubernetes():
    """All objects of the Kubernetes files, by kind and name."""
    found = {}
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            assert item["apiVersion"]
            found[item["kind"], item["metadata"]["name"]] = item
    return found


def check_command(argv):
    """Parse a command as its own command line would, without running it; returns the parsed options by name."""
    argv = [str(word) for word in argv]
    if argv[0] == "pairx":
        from flows.cli import app

        command = typer.main.get_command(app).commands[argv[1]]
    elif argv[:2] == ["dask", "scheduler"]:
        from distributed.cli.dask_scheduler import main as command
    elif argv[:2] == ["dask", "worker"]:
        from distributed.cli.dask_worker import main as command
    else:
        pytest.fail(f"unknown command: {argv}")
    return command.make_context(argv[1], argv[2:]).params


@pytest.fixture(scope="module")
def prefect_server_help():
    command = [sys.executable, "-m", "prefect", "server", "start", "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def check_server(argv, help_text):
    assert argv[:3] == ["prefect", "server", "start"]
    for option in (word for word in argv[3:] if word.startswith("--")):
        assert option in help_text
    assert "0.0.0.0" in argv, "others must reach it"
    return int(argv[argv.index("--port") + 1])


# ---------------------------------------------------------------------------------------------- Prefect


def test_the_nightly_deployment_names_a_flow_and_parameters_that_it_accepts():
    from prefect import Flow

    from schemas.settings import load_settings

    (deployment,) = load("prefect.yaml")["deployments"]
    path, _, name = deployment["entrypoint"].partition(":")
    assert (ROOT / path).is_file()
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert isinstance(flow, Flow)
    bound = inspect.signature(flow.fn).bind(**deployment["parameters"])
    load_settings(overrides=bound.arguments["settings"])


def test_the_nightly_deployment_has_only_keys_that_prefect_reads():
    from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig

    content = load("prefect.yaml")
    known = {f.alias or name for name, f in PrefectYamlModel.model_fields.items()}
    assert set(content) <= known
    for deployment in content["deployments"]:
        assert set(deployment) <= set(DeploymentConfig.model_fields)
        for schedule in deployment["schedules"]:
            RawScheduleConfig.model_validate(schedule)
    PrefectYamlModel.model_validate(content)


def test_it_runs_once_every_night():
    from prefect.client.schemas.schedules import CronSchedule

    (deployment,) = load("prefect.yaml")["deployments"]
    (schedule,) = deployment["schedules"]
    CronSchedule(**schedule)
    minute, hour, *days = schedule["cron"].split()
    assert minute.isdigit()
    assert hour.isdigit()
    assert days == ["*", "*", "*"]
    assert deployment["concurrency_limit"] == 1


# ---------------------------------------------------------------------------------------------- image


def dockerfile():
    """Instructions of the Dockerfile: (word, the rest), with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_copies_what_exists_and_all_that_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {source for word, rest in dockerfile() if word == "COPY" for source in rest.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], *packages}
    assert needed <= copied


def test_the_image_is_a_small_python_that_installs_what_is_pinned_and_runs_without_privileges():
    instructions = dockerfile()
    assert instructions[0] == ("FROM", "python:3.11-slim")
    (install,) = [rest for word, rest in instructions if word == "RUN"]
    constraints = re.search(r"-c (\S+)", install)[1]
    assert any(word == "COPY" and rest.split()[-1] == constraints for word, rest in instructions)
    users = [rest for word, rest in instructions if word == "USER"]
    assert users == ["pairx"]
    assert f"useradd --create-home --uid 1000 {users[-1]}" in install
    words = [word for word, _ in instructions]
    assert words.index("USER") > words.index("RUN")


def test_the_image_starts_a_command_that_is_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    (command,) = [yaml.safe_load(rest) for word, rest in dockerfile() if word == "CMD"]
    assert command[0] in scripts


def test_nothing_reports_home():
    (environment,) = [
        dict(pair.split("=", 1) for pair in shlex.split(rest)) for word, rest in dockerfile() if word == "ENV"
    ]
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"


# ---------------------------------------------------------------------------------------------- compose


def test_compose_names_services_commands_and_files_that_exist(prefect_server_help):
    services = load("compose.yaml")["services"]
    assert set(services) == {"prefect", "scheduler", "worker", "run"}
    for service in services.values():
        assert service["image"] == IMAGE
        assert set(service.get("depends_on", ())) <= set(services)
    build = services["prefect"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    port = check_server(services["prefect"]["command"], prefect_server_help)
    for name in ("scheduler", "worker", "run"):
        api = urlsplit(services[name]["environment"]["PREFECT_API_URL"])
        assert (api.hostname, api.port, api.path) == ("prefect", port, "/api")


def test_compose_workers_and_the_run_meet_at_the_scheduler_and_see_the_same_files():
    services = load("compose.yaml")["services"]
    scheduler = check_command(services["scheduler"]["command"])
    worker = check_command(services["worker"]["command"])
    run = check_command(services["run"]["command"])
    address = f"tcp://scheduler:{scheduler['port']}"
    assert worker["scheduler"] == address
    assert run["cluster"] == address
    assert services["worker"]["volumes"] == services["run"]["volumes"]
    (volume,) = services["run"]["volumes"]
    inside = volume.rpartition(":")[2]
    assert Path(run["catalogue"]).is_relative_to(inside)
    assert Path(run["warehouse"]).is_relative_to(inside)


def test_compose_waits_for_what_the_run_needs():
    services = load("compose.yaml")["services"]
    waits = {(name, other) for name, s in services.items() for other in s.get("depends_on", ())}
    assert {("scheduler", "prefect"), ("worker", "scheduler"), ("run", "worker")} <= waits
    healthy = {
        other
        for service in services.values()
        if isinstance(service.get("depends_on"), dict)
        for other, how in service["depends_on"].items()
        if how["condition"] == "service_healthy"
    }
    assert healthy == {"prefect", "worker"}
    for name in healthy:
        kind, *command = services[name]["healthcheck"]["test"]
        assert (kind, command[:2]) == ("CMD", ["python", "-c"])
        compile(command[2], name, "exec")


def test_compose_opens_no_port_to_the_outside():
    for service in load("compose.yaml")["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


# ---------------------------------------------------------------------------------------------- Kubernetes


def pod(item):
    return item["spec"]["template"]["spec"] if "template" in item["spec"] else item["spec"]


def check_pod(spec):
    """Names within a pod refer to each other; returns its only container."""
    (container,) = spec["containers"]
    assert container["image"] == IMAGE
    assert {m["name"] for m in container.get("volumeMounts", ())} <= {
        v["name"] for v in spec.get("volumes", ())
    }
    probe = container.get("readinessProbe", {}).get("httpGet", {}).get("port")
    assert probe in (None, *(p["name"] for p in container.get("ports", ())))
    return container


def environment_of(container):
    return {pair["name"]: pair["value"] for pair in container.get("env", ())}


def test_kubernetes_holds_a_server_a_cluster_and_a_run():
    assert set(kubernetes()) == {
        ("Deployment", "pairx-prefect"),
        ("Service", "pairx-prefect"),
        ("DaskCluster", "pairx"),
        ("Job", "pairx-run"),
    }


def test_the_dask_cluster_and_the_run_meet_at_the_operators_service():
    objects = kubernetes()
    cluster = objects["DaskCluster", "pairx"]
    assert cluster["apiVersion"] == "kubernetes.dask.org/v1"
    scheduler = check_pod(cluster["spec"]["scheduler"]["spec"])
    port = check_command(scheduler["args"])["port"]
    service = cluster["spec"]["scheduler"]["service"]
    assert service["selector"] == {"dask.org/cluster-name": "pairx", "dask.org/component": "scheduler"}
    ports = {p["name"]: p["containerPort"] for p in scheduler["ports"]}
    assert all(p["targetPort"] in ports and p["port"] == ports[p["targetPort"]] for p in service["ports"])
    assert ports["tcp-comm"] == int(port)

    worker = check_pod(cluster["spec"]["worker"]["spec"])
    assert check_command(worker["args"])["name"] == "$(DASK_WORKER_NAME)"
    run = check_pod(pod(objects["Job", "pairx-run"]))
    found = check_command(run["args"])
    assert found["cluster"] == f"tcp://{cluster['metadata']['name']}-scheduler:{port}"
    mounts = {m["mountPath"] for m in run["volumeMounts"]}
    assert mounts == {m["mountPath"] for m in worker["volumeMounts"]}
    assert all(
        any(Path(found[name]).is_relative_to(m) for m in mounts) for name in ("catalogue", "warehouse")
    )
    assert run["volumeMounts"] == worker["volumeMounts"]
    assert pod(objects["Job", "pairx-run"])["volumes"] == cluster["spec"]["worker"]["spec"]["volumes"]


def test_kubernetes_pods_report_to_the_prefect_service(prefect_server_help):
    objects = kubernetes()
    server = check_pod(pod(objects["Deployment", "pairx-prefect"]))
    port = check_server(server["args"], prefect_server_help)
    service = objects["Service", "pairx-prefect"]
    labels = objects["Deployment", "pairx-prefect"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert [p["port"] for p in service["spec"]["ports"]] == [port]
    worker = objects["DaskCluster", "pairx"]["spec"]["worker"]["spec"]["containers"][0]
    for container in (worker, *pod(objects["Job", "pairx-run"])["containers"]):
        assert environment_of(container)["PREFECT_API_URL"] == f"http://pairx-prefect:{port}/api"
