"""The night run as a Prefect deployment: what it names exists, and it runs once every night."""

from __future__ import annotations

import inspect

from packaging.requirements import Requirement
from packaging.version import Version

from tests.deploy.deploy_files import PROJECT, constraints, load


def test_it_names_a_flow_and_parameters_that_the_flow_accepts():
    from prefect import Flow
    from prefect.flows import load_flow_from_entrypoint

    from schemas.settings import load_settings

    (deployment,) = load("prefect.yaml")["deployments"]
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert isinstance(flow, Flow)
    bound = inspect.signature(flow.fn).bind(**deployment["parameters"])
    load_settings(overrides=bound.arguments["settings"])


def test_it_has_only_keys_that_prefect_reads():
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


def test_prefect_has_a_database_library_with_which_it_plans_runs():
    pinned = constraints()["SQLAlchemy"]
    assert Requirement(
        next(d for d in PROJECT["project"]["dependencies"] if d.startswith("sqlalchemy"))
    ).specifier.contains(pinned)
    assert Version(pinned) < Version("2.1"), "Prefect 3.8 fails to insert scheduled runs with it"
