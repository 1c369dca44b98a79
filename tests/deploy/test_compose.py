"""The compose files: services, commands, addresses, passwords and waits fit each other.

Nobody has more rights than needed.
"""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest

from tests.deploy.deploy_files import (
    CPU_IMAGE,
    DEPLOY,
    GPU_IMAGE,
    ROOT,
    compose,
    example,
    health_of,
    image_environment,
    load,
    parse,
    stages,
)

VARIABLES = example("compose.env.example")
ONCE = {"bucket", "run", "schedule"}
"""Services that end by themselves, and are started by name only."""
BOTH = pytest.mark.parametrize(
    "files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")], ids=["cpu", "gpu"]
)


def services(*files):
    return compose(VARIABLES, *files)["services"]


def ours(found):
    return {name: s for name, s in found.items() if s["image"].startswith("pairx:")}


def port_of(url):
    return urlsplit(url).port


@BOTH
def test_it_is_what_the_specification_allows(files):
    pytest.importorskip("check_jsonschema", reason="the schema comes with check-jsonschema")
    place = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(compose(VARIABLES, *files), json.loads(place.read_text(encoding="utf-8")))


@BOTH
def test_all_of_ours_run_one_image_that_is_built_here(files):
    found = services(*files)
    image = GPU_IMAGE if len(files) > 1 else CPU_IMAGE
    assert {s["image"] for s in ours(found).values()} == {image}
    (build,) = [s["build"] for s in found.values() if "build" in s]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert build["target"] in stages()
    assert image.endswith("-gpu") == (build["target"] == "gpu")
    for service in found.values():
        name, _, tag = service["image"].partition(":")
        assert name
        assert any(letter.isdigit() for letter in tag), "a tag that stays what it is"


@BOTH
def test_nobody_has_more_rights_than_needed(files):
    for name, service in services(*files).items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "/tmp" in service["tmpfs"]
        assert service["mem_limit"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        if name not in ours(services(*files)):
            user, group = service["user"].split(":")
            assert int(user) * int(group) > 0


def test_what_stays_is_started_again_and_says_whether_it_is_well():
    for name, service in services().items():
        if name in ONCE:
            assert service["profiles"] == ["once"]
            assert service["restart"].startswith("on-failure:")
        else:
            assert "profiles" not in service
            assert service["restart"] == "unless-stopped"
            assert health_of(service), name


def test_it_needs_exactly_what_the_example_names():
    for name in VARIABLES:
        with pytest.raises(KeyError, match=name):
            compose({k: v for k, v in VARIABLES.items() if k != name})


def test_everybody_waits_for_what_is_needed():
    found = services()
    waits = {
        (name, other, how["condition"])
        for name, service in found.items()
        for other, how in service.get("depends_on", {}).items()
    }
    assert {other for _, other, _ in waits} <= set(found)
    for _, other, condition in waits:
        assert condition == ("service_completed_successfully" if other in ONCE else "service_healthy")
    needed = {
        ("prefect", "database"),
        ("worker", "scheduler"),
        ("bucket", "store"),
        *((name, other) for name in ("run", "nights") for other in ("prefect", "store", "worker")),
        ("run", "bucket"),
        ("schedule", "nights"),
        ("schedule", "bucket"),
    }
    assert {(name, other) for name, other, _ in waits} == needed


@BOTH
def test_workers_and_runs_meet_at_the_scheduler_and_see_the_same_files(files):
    found = services(*files)
    scheduler = parse(found["scheduler"]["command"])
    worker = parse(found["worker"]["command"])
    run = parse(found["run"]["command"])
    address = f"tcp://scheduler:{scheduler['port']}"
    assert worker["scheduler"] == address
    assert run["cluster"] == address
    assert run["wait"]
    given = dict(word.split("=", 1) for word in parse(found["schedule"]["command"])["param"])
    assert json.loads(given["settings"]) == {"cluster": address}
    assert (given["catalogue"], given["warehouse"]) == (run["catalogue"], run["warehouse"])
    assert found["worker"]["volumes"] == found["run"]["volumes"] == found["nights"]["volumes"]
    places = {volume.split(":")[1]: volume for volume in found["run"]["volumes"]}
    assert places[run["catalogue"]].endswith(":ro")
    for name in ("worker", "run", "nights"):
        assert found[name]["environment"]["HF_HOME"] in places
        assert any(
            found[name]["environment"]["HF_HOME"] in rest for word, rest in stages()["cpu"] if word == "RUN"
        )
    assert urlsplit(run["warehouse"]).netloc in found["bucket"]["command"][-1]


def test_health_is_asked_where_it_is_answered():
    found = services()
    asked = {name: s["environment"]["HEALTH_URL"] for name, s in ours(found).items() if name not in ONCE}
    assert port_of(asked["scheduler"]) == int(
        parse(found["scheduler"]["command"])["dashboard_address"].strip(":")
    )
    assert port_of(asked["worker"]) == int(parse(found["worker"]["command"])["dashboard_address"].strip(":"))
    assert port_of(asked["prefect"]) == parse(found["prefect"]["command"])["port"]
    from prefect.settings import get_current_settings

    assert port_of(asked["nights"]) == get_current_settings().worker.webserver.port
    assert parse(found["nights"]["command"])["with_healthcheck"]


def test_ours_find_prefect_and_the_store():
    found = services()
    port = parse(found["prefect"]["command"])["port"]
    store = next(word for word in found["store"]["healthcheck"]["test"] if word.startswith("http"))
    for name in ("worker", "nights", "run", "schedule", "bucket"):
        environment = found[name]["environment"]
        api = urlsplit(environment["PREFECT_API_URL"])
        assert (api.hostname, api.port, api.path) == ("prefect", port, "/api")
        endpoint = urlsplit(environment["AWS_ENDPOINT_URL"])
        assert (endpoint.hostname, endpoint.port) == ("store", port_of(store))
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert environment[key] == found["store"]["environment"][key] == VARIABLES[key]
    assert parse(found["prefect"]["command"])["host"] == "0.0.0.0", "others must reach it"


def test_prefect_knows_its_database_by_settings_that_it_reads():
    from prefect.settings import Settings

    found = services()
    environment, database = found["prefect"]["environment"], found["database"]["environment"]
    read = str(Settings.model_json_schema())
    for name in (name for name in environment | image_environment() if name.startswith("PREFECT_")):
        assert name.lower() in read.lower(), name
    assert environment["PREFECT_SERVER_DATABASE_HOST"] == "database"
    assert environment["PREFECT_SERVER_DATABASE_USER"] == database["POSTGRES_USER"]
    assert environment["PREFECT_SERVER_DATABASE_NAME"] == database["POSTGRES_DB"]
    assert environment["PREFECT_SERVER_DATABASE_PASSWORD"] == database["POSTGRES_PASSWORD"]


def test_the_deployment_is_the_one_of_the_prefect_file_in_the_pool_that_is_served():
    whole = compose(VARIABLES)
    found = whole["services"]
    (config,) = found["schedule"]["configs"]
    source = whole["configs"][config["source"]]["file"]
    (deployment,) = load(source)["deployments"]
    options = parse(found["schedule"]["command"])
    assert str(options["prefect_file"]) == config["target"]
    assert options["names"] == [deployment["name"]]
    assert parse(found["nights"]["command"])["work_pool_name"] == deployment["work_pool"]["name"]


def test_the_store_reports_to_nobody():
    assert "-master.telemetry=false" in services()["store"]["command"]


def test_volumes_that_are_named_exist():
    whole = compose(VARIABLES)
    used = {v.split(":")[0] for s in whole["services"].values() for v in s.get("volumes", ())}
    assert {name for name in used if not Path(name).is_absolute()} == set(whole["volumes"])


def test_the_gpu_worker_has_a_gpu_and_says_so():
    worker = services("compose.yaml", "compose.gpu.yaml")["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert parse(worker["command"])["resources"] == "GPU=1"
    plain = parse(services()["worker"]["command"])
    assert not plain["resources"]
    assert parse(worker["command"]) | {"resources": None, "memory_limit": None} == plain | {
        "resources": None,
        "memory_limit": None,
    }
