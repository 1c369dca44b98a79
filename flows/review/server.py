"""Starts the review server, says where it is, and ends it cleanly."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from threading import Timer

import uvicorn

from flows.review.app import review_app
from flows.review.guard import Door, is_loopback
from flows.review.methods import Methods
from flows.review.session import Session
from flows.terminal import PlainConsole
from schemas.errors import PairxError

PORT = 8765
"""The port that is tried first where none is named."""
_OUT = PlainConsole()


class PortTaken(PairxError):
    """The server cannot listen at the address that was asked for."""

    exit_code = 2


def serve(warehouse: str, host: str, port: int | None, browser: bool, reviewer: str | None) -> None:
    """Serve the review of a warehouse until Ctrl-C.

    Raises `PortTaken` where the address cannot be had, and `NoWarehouse` where there is nothing to review.
    """
    listening = listen(host, port)
    session = Session(warehouse)
    door = Door(host, None if is_loopback(host) else secrets.token_urlsafe(24))
    app = review_app(session, Methods(session.warehouse, lambda: session.catalogue), door, reviewer)
    address = address_of(listening, door)
    count = len(session.queue.cards)
    _OUT.print(f"{count} questions of run {session.catalogue.run_id} in {session.warehouse.url}")
    _OUT.print(f"review at {address}   (Ctrl-C ends it; every answer is stored when it is given)")
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, server_header=False
        )
    )
    if browser:
        Timer(0.5, webbrowser.open, [address]).start()
    try:
        server.run(sockets=[listening])
    finally:
        session.catalogue.close()


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket at a port, or at `PORT` or any free one; raises `PortTaken`."""
    tried = [port] if port is not None else [PORT, 0]
    for each in tried:
        try:
            family = socket.getaddrinfo(host, each, type=socket.SOCK_STREAM)[0][0]
            # Not create_server: uvicorn listens itself, and a dual socket would listen at all addresses.
            found = socket.socket(family, socket.SOCK_STREAM)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, each))
            found.listen(128)
        except (OSError, OverflowError) as error:
            reason = error
            continue
        return found
    raise PortTaken(f"cannot listen at {host}, port {tried[0]}: {reason}", "choose another --port or --host")


def address_of(listening: socket.socket, door: Door) -> str:
    """The address to open, with the token where there is one."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # a name for what was asked for
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={door.token}" if door.token else "")
