"""Who may speak to the server: its own page on its own machine, or who holds the token."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from flows.review.guard import COOKIE, CUSTOM_HEADER, HEADERS, Door, Guard, is_loopback
from flows.review.server import PortTaken, address_of, listen

HERE = "http://127.0.0.1:8765"
OURS = {CUSTOM_HEADER: "1", "Origin": HERE}


def behind(door: Door) -> TestClient:
    async def said(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    app = Starlette(routes=[Route(path, said, methods=["GET", "POST"]) for path in ("/", "/x")])
    return TestClient(Guard(app, door), base_url=HERE, follow_redirects=False)


@pytest.fixture
def local() -> TestClient:
    return behind(Door("127.0.0.1"))


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:8765", "localhost", "[::1]:8765", "LOCALHOST."]
)
def test_this_machine_is_known_by_its_own_names(local: TestClient, host: str) -> None:
    assert local.get("/x", headers={"Host": host}).text == "in"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "[",
        "127.0.0.1@evil.example",
    ],
)
def test_a_name_that_somebody_points_here_is_refused(local: TestClient, host: str) -> None:
    assert local.get("/x", headers={"Host": host}).status_code == 421


def test_beyond_this_machine_addresses_pass_and_foreign_names_do_not() -> None:
    door = Door("0.0.0.0", "t")
    assert [door.admits(host) for host in ("192.168.1.7:80", "[fe80::1]", "evil.example", "0x7f.1")] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": HERE},
        {CUSTOM_HEADER: "1", "Origin": "http://evil.example"},
        {CUSTOM_HEADER: "1", "Origin": "null"},
        {CUSTOM_HEADER: "1", "Origin": "https://127.0.0.1:8765"},
        {CUSTOM_HEADER: "1", "Origin": "http://127.0.0.1:9999"},
        {CUSTOM_HEADER: "1", "Sec-Fetch-Site": "cross-site"},
        {CUSTOM_HEADER: "1", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_only_the_page_itself_may_change_anything(local: TestClient, headers: dict[str, str]) -> None:
    assert local.post("/x", headers=headers).status_code == 403
    assert local.post("/x", headers=OURS | {"Sec-Fetch-Site": "same-origin"}).text == "in"


def test_the_token_opens_the_door_once_and_a_cookie_keeps_it_open() -> None:
    client = behind(Door("0.0.0.0", "secret"))
    assert client.get("/x").status_code == 401
    assert client.post("/x", headers=OURS).status_code == 401
    for wrong in ("/?token=secre", "/?token=", "/?token=é", "/x?token=secret"):
        assert client.get(wrong).status_code == 401
    entered = client.get("/?token=secret")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"].casefold()
    assert f"{COOKIE}=secret" in cookie
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/x").text == "in"
    assert client.post("/x", headers=OURS).text == "in"
    client.cookies.clear()
    client.cookies.set(COOKIE, "guess")
    assert client.get("/x").status_code == 401


def test_every_answer_forbids_scripts_of_others(local: TestClient) -> None:
    for answer in (local.get("/x"), local.get("/nowhere"), local.get("/x", headers={"Host": "evil.example"})):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.1.1.1", False),
        ("example", False),
    ],
)
def test_a_token_is_needed_wherever_others_can_reach(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


def test_a_port_that_is_taken_is_said_and_the_default_gives_way() -> None:
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
        assert ports[0] != ports[1]
        with pytest.raises(PortTaken, match="choose another --port"):
            listen("127.0.0.1", ports[1])
        assert address_of(second, Door("127.0.0.1")) == f"http://127.0.0.1:{ports[1]}/"
        assert address_of(second, Door("127.0.0.1", "t")).endswith("/?token=t")
