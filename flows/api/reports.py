"""Reports to Prefect that may fail: the run then goes on without them and says so once.

Prefect's own code gives shards to Dask without asking its API, and reports their states in the background.
This module holds what asks the API in the foreground: artifacts, and the last state of a flow.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import httpx
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings

from schemas.errors import PairxError

if TYPE_CHECKING:
    from prefect import Flow

T = TypeVar("T")
_LOG = logging.getLogger("pairx")
_said: set[str] = set()
"""Addresses that a message has already called dead."""
_ENDED: ContextVar[tuple[list[Any], Any]] = ContextVar(
    "what the function of the flow that runs returned or raised, and who handled SIGTERM before the flow"
)


class Reports:
    """A run's progress and summary as Prefect artifacts; after the first failure no more are sent."""

    def __init__(self) -> None:
        self._lost = False

    def begin(self, key: str) -> UUID | None:
        """A new progress bar."""
        artifact: UUID | None = self._send(lambda: create_progress_artifact(0.0, key=key))
        return artifact

    def progress(self, artifact: UUID | None, percent: float) -> None:
        """Move it on."""
        if artifact is not None:
            self._send(lambda: update_progress_artifact(artifact, percent))

    def summary(self, key: str, markdown: str, description: str) -> None:
        """A text."""
        self._send(lambda: create_markdown_artifact(key=key, markdown=markdown, description=description))

    def _send(self, send: Callable[[], Any]) -> Any:
        if self._lost:
            return None
        try:
            return send()
        except Exception as error:
            self._lost = True
            _say_lost(_address(), _why(error))
            return None


def outcome_kept(work: Callable[[], T]) -> T:
    """Do a flow's work; its result or error is kept for `run_flow`, which called the flow."""
    ended, handler = _ENDED.get()
    try:
        with _sigterm_goes_to(handler):
            result = work()
    except BaseException as error:
        ended.append(error)
        raise
    ended.append(result)
    return result


@contextmanager
def _sigterm_goes_to(handler: Any) -> Iterator[None]:
    """A block in which SIGTERM goes to the handler from before the flow.

    Prefect installs a handler of its own for a flow, which raises an exception of its own.
    """
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    of_prefect = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) == handler:  # one that has heard it may be deaf from then on
            signal.signal(signal.SIGTERM, of_prefect)


def run_flow(flow: Flow[[], T]) -> T:
    """Run a flow whose function uses `outcome_kept`, and return or raise what its work did.

    That holds even when Prefect fails after the work. Raises `PairxError` when Prefect fails before the
    work begins.
    """
    ended: list[Any] = []
    token = _ENDED.set((ended, signal.getsignal(signal.SIGTERM)))
    try:
        return flow()
    except BaseException as error:
        if not ended:
            if isinstance(error, httpx.HTTPError | PrefectException):
                raise PairxError(
                    f"the Prefect API at {_address()} does not answer any more: {_why(error)}",
                    "run again; without PREFECT_API_URL the run starts a server of its own",
                ) from error
            raise
        if isinstance(ended[0], BaseException):
            raise ended[0] from None
        if not isinstance(error, Exception):
            raise
        _say_lost(_address(), _why(error))
        result: T = ended[0]
        return result
    finally:
        _ENDED.reset(token)


def _say_lost(address: str, why: str) -> None:
    if address in _said:
        return
    _said.add(address)
    _LOG.warning(
        "the Prefect API at %s does not answer any more (%s): the run goes on without its reports",
        address,
        why,
    )


def _address() -> str:
    return str(get_current_settings().api.url)


def _why(error: BaseException) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return f"{type(error).__name__}: {error}".partition("\n")[0] if str(error) else type(error).__name__
