"""Who may speak to the server, and what a browser may do with its pages.

* A page elsewhere can make a browser send requests here. Its address for this machine is refused by the header
  `Host` (DNS rebinding); requests that change anything must carry a header that only a script of this very
  origin can set, and must come from it (CSRF).
* Beyond this machine everybody needs the token of the printed address; a cookie that scripts cannot read then
  stands for it. It is compared in constant time.
* A catalogue's strings are data: the policy runs no inline script and loads from nowhere else, so that what
  slipped through would still not run.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CUSTOM_HEADER = "x-pairx-review"
COOKIE = "pairx-review"
POLICY = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_READS = ("GET", "HEAD")


@dataclass(frozen=True)
class Door:
    """Where the server listens; `token` is None where only this machine reaches it."""

    host: str
    token: str | None = None

    def admits(self, host: str) -> bool:
        """Whether a request may name this host.

        Others' DNS names never pass. Beyond this machine plain addresses do, since nobody can point them
        elsewhere, and the machine's own names.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in _LOOPBACK:
            return True
        if is_loopback(self.host):
            return name == self.host
        own = {self.host.casefold(), socket.gethostname().casefold(), socket.getfqdn().casefold()}
        return name in own or _is_address(name)

    def opens(self, given: str | None) -> bool:
        """Whether what was given is the token."""
        return self.token is None or hmac.compare_digest((given or "").encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware that applies this module's docstring to every request."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with words."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = self._refusal(scope) or self._app

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._door.admits(host):
            return _refused(
                421, "this server is not known by that name; use the address that pairx review printed"
            )
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [None])[0]
        if given is not None and scope["path"] == "/" and scope["method"] in _READS:
            return self._entered(given)
        if not self._door.opens(_cookie(headers)):
            return _refused(401, "open the address with its token that pairx review printed")
        if scope["method"] not in _READS:
            return _foreign(scope, headers, host)
        return None

    def _entered(self, given: str) -> Response:
        if not self._door.opens(given):
            return _refused(
                401, "this token is not that of the server; use the address that pairx review printed"
            )
        answer = RedirectResponse("/", 303)
        if self._door.token is not None:
            answer.set_cookie(COOKIE, self._door.token, httponly=True, samesite="strict")
        return answer


def _foreign(scope: Scope, headers: Headers, host: str) -> Response | None:
    """The refusal of a request to change something that does not come from the page itself."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if headers.get(CUSTOM_HEADER) is None:
        return _refused(403, f"a request that changes anything needs the header {CUSTOM_HEADER}")
    if origin is not None and origin != f"{scope['scheme']}://{host}":
        return _refused(403, "this request comes from another page")
    if site is not None and site != "same-origin":
        return _refused(403, "this request comes from another page")
    return None


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def _refused(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)
