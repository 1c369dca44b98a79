"""An S3 server for tests in a process of its own, and a proxy before it.

The proxy counts requests and, when told to, lets them fail.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BUCKET = "night"
_START_SECONDS = 90
_DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
FAULTS = ("500 InternalError", "503 SlowDown", "reset before", "reset after", "truncated", "slow")
"""What may happen to a request.

An error or SlowDown in place of an answer; a connection reset before the request arrives or after it was
carried out; an answer that breaks off; one that takes its time.
"""


def environment(endpoint: str) -> dict[str, str]:
    """What a process needs to find the store, and nothing of what this machine may know of another."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "no-secret-at-all",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server that knows one empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env=kept,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(process, endpoint)
        client_of(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], endpoint: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the S3 server did not start"
        with (
            suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=2),
        ):
            return
        time.sleep(0.05)
    raise AssertionError("the S3 server does not answer")


def client_of(endpoint: str) -> Any:
    """A plain client of the store, as its owner has one."""
    import botocore.session

    return botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="tester",
        aws_secret_access_key="no-secret-at-all",
    )


def forget_connections() -> None:
    """Let this process look for its store anew."""
    from s3fs import S3FileSystem

    from schemas.storage import _storage

    _storage.cache_clear()
    S3FileSystem.clear_instance_cache()


def place(name: str) -> str:
    """A URL in the bucket that no other test uses."""
    return f"s3://{BUCKET}/{name}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Request:
    """One request as the store saw it: GET, PUT, HEAD, DELETE, or LIST, of a key or a prefix."""

    method: str
    key: str

    @classmethod
    def of(cls, method: str, target: str) -> Request:
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True)
        if method == "GET" and ("list-type" in query or "prefix" in query):
            return cls("LIST", query.get("prefix", [""])[0])
        if method == "POST" and "delete" in query:
            return cls("DELETE", parts.path)
        return cls(method, parts.path.partition("/")[2].partition("/")[2])


@dataclass
class Proxy:
    """Stands before a store; `requests` are those that came since the last `forget`."""

    upstream: str
    endpoint: str = ""
    requests: list[Request] = field(default_factory=list)
    faults: Sequence[str] = ()
    share: float = 0.0
    """Share of the requests that meet one of the faults."""
    slow_seconds: float = 0.3
    met: Counter[str] = field(default_factory=Counter)
    """How often each fault happened."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _random: random.Random = field(default_factory=random.Random)

    def fail(self, seed: int, share: float, faults: Sequence[str] = FAULTS) -> None:
        """From now on let that share of the requests fail, at random."""
        self._random, self.share, self.faults = random.Random(seed), share, tuple(faults)

    def forget(self) -> None:
        """Count from nothing."""
        self.requests.clear()
        self.met.clear()

    def count(self) -> Counter[str]:
        """Requests by method."""
        return Counter(request.method for request in self.requests)

    def meet(self, method: str, target: str) -> str | None:
        """Note a request; the fault that it meets, if any."""
        with self._lock:
            self.requests.append(Request.of(method, target))
            if not self.faults or self._random.random() >= self.share:
                return None
            fault, _, of = self._random.choice(self.faults).partition(" on ")
            if of and of != method:
                return None
            self.met[fault] += 1
            return fault


@contextmanager
def proxy_before(upstream: str) -> Iterator[Proxy]:
    """A proxy on loopback before the store at `upstream`."""
    proxy = Proxy(upstream)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        fault = self.proxy.meet(self.command, self.path)
        body = self._body()
        if fault == "reset before":
            self._reset()
        elif fault == "stalled":
            time.sleep(3600)
        elif fault and fault[0].isdigit():
            status, _, code = fault.partition(" ")
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>simulated</Message></Error>"
            self._answer(int(status), [("Content-Type", "application/xml")], text.encode())
        else:
            if fault == "slow":
                time.sleep(self.proxy.slow_seconds)
            status, headers, data = self._forward(body)
            if fault == "reset after":
                self._reset()
            else:
                self._answer(status, headers, data, cut=fault == "truncated")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        try:
            kept = {
                k: v
                for k, v in self.headers.items()
                if k.lower() not in ("connection", "expect", "transfer-encoding")
            }
            connection.request(
                self.command, self.path, body or None, kept | {"Content-Length": str(len(body))}
            )
            answer = connection.getresponse()
            data = answer.read()
            length = answer.headers.get("Content-Length", str(len(data)))
            headers = [(k, v) for k, v in answer.headers.items() if k.lower() not in _DROPPED]
            if self.command == "HEAD":
                headers.append(("Content-Length", length))
            return answer.status, headers, data
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command == "HEAD":
            self.end_headers()
            return
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut and data:
            self.wfile.flush()
            self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
