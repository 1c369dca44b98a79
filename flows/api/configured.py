"""A look at the configured Prefect API before anything starts.

One that is dead, or is no Prefect API, then ends the command with a plain message.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from uuid import UUID

from schemas.errors import SettingsError

_SECONDS = 15.0
"""A server whose machine is busy may take several seconds."""
_NO_RUN = {"flow_runs": {"id": {"any_": [str(UUID(int=0))]}}}
_WITHOUT = (
    "or do without: unset PREFECT_API_URL (`prefect config unset PREFECT_API_URL` where a profile sets it), and the run "
    "starts a server of its own"
)


def require_answer(url: str) -> None:
    """Raise `SettingsError` unless a Prefect API answers at `url` within seconds, and lets us in.

    The question goes out with the configured key, certificates and headers: how many flow runs have an id
    that no run has. Every Prefect server and Prefect Cloud can answer it.
    """
    shown = _without_password(url)
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        with (
            temporary_settings(updates={PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": _SECONDS}) as client,
        ):
            counted = client.request("POST", "/flow_runs/count", json=_NO_RUN).json()
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise SettingsError(
                f"the Prefect API at {shown} does not let us in ({status})",
                f"set PREFECT_API_KEY (Prefect Cloud) or PREFECT_API_AUTH_STRING (a server of your own); {_WITHOUT}",
            ) from error
        if status >= 500:
            raise SettingsError(
                f"the Prefect API at {shown} answers with an error ({status})", f"see its log; {_WITHOUT}"
            ) from error
        counted = None
    except ValueError:  # an answer that is no JSON
        counted = None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise SettingsError(
            f"the Prefect API at {shown} does not answer: {str(error) or type(error).__name__}",
            f"start it (`prefect server start`); {_WITHOUT}",
        ) from error
    if not isinstance(counted, int):
        raise SettingsError(
            f"what answers at {shown} is no Prefect API",
            f"its address ends in /api, as http://HOST:4200/api; {_WITHOUT}",
        )


def _without_password(url: str) -> str:
    """The address without its password; `SettingsError` for a text that is no address."""
    try:
        parts = urlsplit(url)
        known = (
            parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        known = False
    if not known:
        raise SettingsError(
            f"PREFECT_API_URL is no address of an API: {url!r}",
            f"write it as http://HOST:4200/api; {_WITHOUT}",
        )
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
