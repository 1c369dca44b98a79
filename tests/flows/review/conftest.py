"""A reviewed warehouse, its session, and a client of its server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from flows.review.app import review_app
from flows.review.guard import CUSTOM_HEADER, Door
from flows.review.methods import Methods
from flows.review.session import Session
from tasks.store.warehouse import Warehouse
from tests.flows.review.warehouses import reviewed

ADDRESS = "http://127.0.0.1:8765"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The warehouse of `reviewed`; read only."""
    return reviewed(tmp_path_factory.mktemp("reviewed"))


@pytest.fixture
def warehouse(made: Warehouse, tmp_path: Path) -> Warehouse:
    """A copy of it, without answers."""
    return Warehouse(
        str(shutil.copytree(made.root, tmp_path / "w", ignore=shutil.ignore_patterns("reviews")))
    )


@pytest.fixture(scope="session")
def opened(made: Warehouse) -> Session:
    """A review of it; read only."""
    return Session(made.url)


@pytest.fixture
def session(opened: Session) -> Session:
    """The same review without any answer."""
    shutil.rmtree(f"{opened.warehouse.root}/reviews", ignore_errors=True)
    opened._show(opened.catalogue)
    return opened


def client_of(session: Session, door: Door | None = None) -> TestClient:
    """A client that sends what the page sends."""
    methods = Methods(session.warehouse, lambda: session.catalogue)
    app = review_app(session, methods, door or Door("127.0.0.1"))
    return TestClient(app, base_url=ADDRESS, headers={CUSTOM_HEADER: "1", "Origin": ADDRESS})


@pytest.fixture
def client(session: Session) -> TestClient:
    """A client of that review."""
    return client_of(session)


Cards = Callable[[], dict[str, dict[str, Any]]]


@pytest.fixture
def cards(client: TestClient) -> Cards:
    """The cards that are open now by what they ask about: the kind, or of a photo's name the photo."""

    def ask() -> dict[str, dict[str, Any]]:
        ids = client.post("/api/queue", json={}).json()["ids"]
        found = client.get("/api/cards", params={"ids": ids}).json() if ids else []
        return {_called(card): card for card in found}

    return ask


def _called(card: dict[str, Any]) -> str:
    doubted = [side["photo"]["id"] for side in card["sides"].values() if side["blamed"]]
    return doubted[0] if card["asks"] == "name" else card["asks"]
