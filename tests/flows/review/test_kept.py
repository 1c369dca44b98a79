"""Explanations on disk: what comes back is what was kept, and nothing else that may lie there is taken for one."""

from __future__ import annotations

import io
import json
import os
import pickle
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from flows.review import kept as module
from flows.review.app import review_app
from flows.review.guard import CUSTOM_HEADER, Door
from flows.review.kept import Kept, KeptFiles
from flows.review.marks import heat
from flows.review.methods import Methods
from flows.review.session import Session
from schemas.errors import StorageError
from tasks.check.findings import check
from tasks.store.warehouse import Warehouse
from tests.flows.review.conftest import ADDRESS

PAIR, OTHER = "0123456789abcdef0123", "f" * 20
GRADIENT = Kept(
    "gradient",
    "the gradient of the cosine",
    {"a": heat(np.eye(8)), "b": heat(np.ones((6, 8)))},
    [{"a": [0.25, 1.0], "b": [0.0, 0.5], "share": 1.0, "residual": None}],
    ["<b>no markup</b> \u202e"],
)


@pytest.fixture
def files(tmp_path: Path) -> KeptFiles:
    return KeptFiles(Warehouse(str(tmp_path / "w")), "f00d")


def stored(files: KeptFiles) -> list[Path]:
    return sorted(path for path in Path(files._warehouse.root).rglob("*") if path.is_file())


def test_what_comes_back_is_what_was_kept(files: KeptFiles) -> None:
    assert (files.read(PAIR, "gradient"), files.of_pair(PAIR)) == (None, [])
    assert files.write(PAIR, GRADIENT)
    (file,) = stored(files)
    data = file.read_bytes()
    again = KeptFiles(files._warehouse, "f00d")
    assert (again.read(PAIR, "gradient"), again.of_pair(PAIR), files.of_pair(PAIR)) == (
        GRADIENT, ["gradient"], ["gradient"],
    )  # fmt: skip
    assert again.write(PAIR, GRADIENT)
    assert (stored(files), file.read_bytes()) == ([file], data)
    # Another pair, method or fingerprint is another explanation.
    assert again.read(OTHER, "gradient") is again.read(PAIR, "grad_cam") is None
    assert KeptFiles(files._warehouse, "beef").read(PAIR, "gradient") is None


def test_they_lie_in_a_store_of_objects_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = Warehouse("memory://kept/w")
    files = KeptFiles(warehouse, "f00d")
    assert (files.read(PAIR, "gradient"), files.of_pair(PAIR)) == (None, [])
    monkeypatch.setattr(module, "MOST_BYTES", 3 * len(module._encoded(PAIR, GRADIENT)))
    pairs = [f"{n:020x}" for n in range(6)]
    for pair in pairs:
        assert files.write(pair, GRADIENT)
        assert KeptFiles(warehouse, "f00d").read(pair, "gradient") == GRADIENT
    left = [pair for pair in pairs if KeptFiles(warehouse, "f00d").of_pair(pair) == ["gradient"]]
    assert len(left) <= 3
    assert left[-1] == pairs[-1]


def test_another_version_of_the_program_computes_anew(
    files: KeptFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(PAIR, GRADIENT)
    monkeypatch.setattr(module, "version", lambda _: "99.0")
    assert KeptFiles(files._warehouse, "f00d").read(PAIR, "gradient") is None


def changed(**fields: Any) -> Callable[[bytes], bytes]:
    """A file that holds other fields under a right digest."""

    def change(data: bytes) -> bytes:
        text = json.dumps(json.loads(data.partition(b"\n")[2]) | fields).encode()
        return module._digest(text) + b"\n" + text

    return change


def encoded(kind: str, size: tuple[int, int] = (8, 8)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind)
    return b64encode(buffer.getvalue()).decode()


MATCH = {"a": [0.5, 0.5], "b": [0.5, 0.5], "share": 1.0, "residual": None}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: pickle.dumps({"pair": PAIR}),
        lambda data: b"[" * 100_000,
        lambda data: data + b" " * module.MOST_OF_ONE,
        changed(pair=OTHER),
        changed(method="grad_cam"),
        changed(more="fields"),
        changed(remarks=["x" * 5000]),
        changed(matches=[MATCH] * 1001),
        changed(matches=[MATCH | {"share": float("nan")}]),
        changed(matches=[MATCH | {"a": [0.5, "0.5"]}]),
        changed(pictures={"c": encoded("WEBP")}),
        changed(pictures={"a": encoded("PNG")}),
        changed(pictures={"a": "<svg onload=alert(1)>"}),
        changed(pictures={"a": encoded("WEBP", (8193, 1))}),
    ],
)
def test_nothing_else_is_taken_for_an_explanation(files: KeptFiles, change: Callable[[bytes], bytes]) -> None:
    files.write(PAIR, GRADIENT)
    (file,) = stored(files)
    file.write_bytes(change(file.read_bytes()))
    assert files.read(PAIR, "gradient") is None
    # It is computed again, and kept in its place.
    assert files.write(PAIR, GRADIENT)
    assert files.read(PAIR, "gradient") == GRADIENT


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(files: KeptFiles) -> None:
    files.write(PAIR, GRADIENT)
    (file,) = stored(files)
    file.unlink()
    os.mkfifo(file)
    assert files.read(PAIR, "gradient") is None


@pytest.mark.parametrize(
    ("pair", "method"),
    [("../../escaped", "gradient"), (PAIR, "../../x"), (PAIR, "a/b"), (PAIR, ""), ("", "x")],
)
def test_no_name_leads_out_of_the_folder(files: KeptFiles, pair: str, method: str, tmp_path: Path) -> None:
    assert not files.write(pair, replace(GRADIENT, method=method))
    assert files.read(pair, method) is None
    assert list(tmp_path.iterdir()) == []


def test_a_warehouse_that_cannot_be_written_to_works(
    files: KeptFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (PermissionError("read only"), StorageError("no space", "make room")):

        def refuse(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Warehouse, "write_file", refuse)
        assert not files.write(PAIR, GRADIENT)
        assert (files.read(PAIR, "gradient"), files.of_pair(PAIR)) == (None, [])


def test_room_is_made_from_other_settings_first_and_never_from_strangers(
    files: KeptFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = KeptFiles(files._warehouse, "beef")
    size = len(module._encoded(PAIR, GRADIENT))
    pairs = [f"{n:020x}" for n in range(20)]
    monkeypatch.setattr(module, "MOST_BYTES", 10 * size)
    for pair in pairs[:4]:
        assert old.write(pair, GRADIENT)
    stranger = stored(files)[0].with_name("notes.txt")
    stranger.write_text("mine")
    for pair in pairs[:6]:
        assert files.write(pair, GRADIENT)
    assert len(stored(files)) == 11
    # One more is too much: the old ones go until three quarters are full, and then no other.
    assert files.write(pairs[6], GRADIENT)
    assert [old.read(pair, "gradient") for pair in pairs[:4]] == [None] * 4
    assert all(files.read(pair, "gradient") == GRADIENT for pair in pairs[:7])
    # With nothing old left some of these go, never the last one.
    for pair in pairs[7:]:
        assert files.write(pair, GRADIENT)
        assert files.read(pair, "gradient") == GRADIENT
        assert sum(path.stat().st_size for path in stored(files)) <= 10 * size + 4
    assert stranger.read_text() == "mine"


def test_no_check_finds_fault_with_them(warehouse: Warehouse) -> None:
    before = check(warehouse).problems
    KeptFiles(warehouse, "f00d").write(PAIR, GRADIENT)
    warehouse.write_file(f"{module.FOLDER}/f00d/{PAIR}-x.json", b"damaged")
    assert check(warehouse).problems == before


def client_of(warehouse: Warehouse) -> TestClient:
    """A client of a server that has just started."""
    session = Session(warehouse.url)
    app = review_app(session, Methods(session.warehouse, lambda: session.catalogue), Door("127.0.0.1"))
    return TestClient(app, base_url=ADDRESS, headers={CUSTOM_HEADER: "1", "Origin": ADDRESS})


def test_a_server_that_starts_again_shows_them_at_once(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Methods, "_computed", lambda *_: (GRADIENT, True))
    first = client_of(warehouse)
    card = first.post("/api/queue", json={}).json()["first"][0]
    assert card["explained"] == []
    asked = first.post(f"/api/explain/{card['id']}/gradient").json()
    monkeypatch.setattr(Methods, "_computed", None)
    again = client_of(warehouse)
    assert again.post("/api/queue", json={}).json()["first"][0]["explained"] == ["gradient"]
    picture = again.get(f"/explained/{card['id']}/gradient/a.webp")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    assert picture.content == GRADIENT.pictures["a"]
    assert again.post(f"/api/explain/{card['id']}/gradient").json() == asked == GRADIENT.values()
    assert again.get(f"/explained/{card['id']}/grad_cam/a.webp").status_code == 404


def test_what_rests_on_something_learned_is_kept_in_memory_alone(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Methods, "_computed", lambda *_: (GRADIENT, False))
    client = client_of(warehouse)
    card = client.post("/api/queue", json={}).json()["first"][0]["id"]
    assert client.post(f"/api/explain/{card}/gradient").status_code == 200
    assert client.get("/api/cards", params={"ids": card}).json()[0]["explained"] == ["gradient"]
    assert client_of(warehouse).get("/api/cards", params={"ids": card}).json()[0]["explained"] == []
