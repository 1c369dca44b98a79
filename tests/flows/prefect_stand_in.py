"""A stand-in for the Prefect API on loopback, with as much of it as a flow asks for.

It starts quickly, and it can die.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from uuid import uuid4

Death = Literal["refuses", "hangs", "fails"]


class StandIn:
    """The API at `url`.

    Once it has died it refuses connections, accepts them without an answer, or answers with errors.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.dead: Death | None = None
        self.late: list[str] = []
        """Requests after its death."""
        self._open: list[socket.socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def die(self, how: Death) -> None:
        """Be dead from now on."""
        self.dead = how
        if how == "refuses":
            self._server.shutdown()
            self._server.server_close()
            for connection in self._open:
                with suppress(OSError):  # it may have ended by itself
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the port."""
        if self.dead != "refuses":
            self._server.shutdown()
            self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api._open.append(self.connection)

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.removeprefix("/api").partition("?")[0]
                (api.late if api.dead else api.requests).append(f"{self.command} {path}")
                if api.dead == "hangs":
                    time.sleep(600)
                status, found = (500, None) if api.dead else _say(self.command, path, body)
                data = b"" if found is None else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = _answer

            def log_message(self, *_: object) -> None:
                pass

        return Handler


_FLOW, _RUN = str(uuid4()), str(uuid4())
_STATE = {"type": "PENDING", "name": "Pending", "id": str(uuid4()), "timestamp": "2026-01-01T00:00:00Z"}


def _say(command: str, path: str, body: bytes) -> tuple[int, Any]:
    run = {
        "id": _RUN,
        "flow_id": _FLOW,
        "name": "stand-in",
        "state": _STATE,
        "state_type": "PENDING",
        "state_name": "Pending",
    }
    match command, re.sub(r"[0-9a-f-]{36}", "ID", path):
        case "POST", "/flow_runs/count":
            return 200, 0
        case "GET", "/admin/version":
            return 200, __import__("prefect").__version__
        case "GET", "/csrf-token":
            return 422, {"detail": "CSRF protection is disabled."}
        case "POST", "/flows/":
            return 201, {"id": _FLOW, "name": "stand-in"}
        case ("POST", "/flow_runs/") | ("GET", "/flow_runs/ID"):
            return 200, run
        case "POST", "/flow_runs/ID/set_state":
            state = json.loads(body)["state"] | {"id": str(uuid4()), "timestamp": "2026-01-01T00:00:01Z"}
            state.pop("data", None)
            return 201, {"status": "ACCEPT", "details": {"type": "accept_details"}, "state": state}
        case "POST", "/artifacts/":
            return 201, {"id": str(uuid4()), "key": json.loads(body)["key"], "type": "progress"}
        case "PATCH", _:
            return 204, None
    return 404, {"detail": "not here"}


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A living API for the length of the block."""
    api = StandIn()
    try:
        yield api
    finally:
        api.close()
