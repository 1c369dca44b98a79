"""Errors of a store of files, in words with a cure, without the secrets in addresses.

Every store's package raises classes of its own. They are told by name, since importing them would need all
those packages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from schemas.errors import NoStorage, StorageError
from schemas.paths import is_url

_USER = re.compile(r"//[^/@\s]*@")
_QUERY = re.compile(r"(\w://[^\s?#'\"]*)[?#][^\s'\"]*")
_NO_CREDENTIALS = frozenset(
    (
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "TokenRetrievalError",
        "NoAuthTokenError",
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
    )
)
_BAD_CREDENTIALS = frozenset(
    (
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "InvalidClientTokenId",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
    )
)
_UNREACHABLE = frozenset(
    (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ConnectionError",
        "ReadTimeoutError",
        "ProxyConnectionError",
        "SSLError",
        "FSTimeoutError",
        "ConnectionRefusedError",
        "gaierror",
    )
)


def refuse_secrets(url: str) -> None:
    """Raise `NoStorage` for a URL with a password, a token or a query.

    It would end up in logs, tables and reports.
    """
    host = url.partition("://")[2].partition("/")[0]
    if is_url(url) and (":" in host.rpartition("@")[0] or "?" in url or "#" in url):
        raise NoStorage(
            f"the address {masked(url)} carries a password or a query",
            "give credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )


def masked(text: str) -> str:
    """The text without the user names, passwords and queries of URLs in it."""
    return _QUERY.sub(r"\1?…", _USER.sub("//…@", text))


def code_of(error: BaseException) -> str | None:
    """The store's own code of an error or of what caused it, as S3 gives it; None where there is none."""
    for one in _chain(error):
        if isinstance(response := getattr(one, "response", None), dict):
            return str(response.get("Error", {}).get("Code"))
    return None


def is_missing(error: BaseException) -> bool:
    """Whether the error says that a file is missing, and not that its bucket is."""
    return isinstance(error, FileNotFoundError) and code_of(error) != "NoSuchBucket"


def is_final(error: BaseException) -> bool:
    """Whether asking again cannot help."""
    return (
        isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError)
        or code_of(error) in _BAD_CREDENTIALS | {"InvalidRange"}
        or not _NO_CREDENTIALS.isdisjoint(_kinds(error))
        or "Invalid endpoint" in str(error)
    )


def is_outage(error: BaseException) -> bool:
    """Whether the store failed, and not what was asked of it."""
    code = code_of(error)
    return (
        is_ill(error)
        or code == "NoSuchBucket"
        or is_unreachable(error)
        or code in _BAD_CREDENTIALS
        or not _NO_CREDENTIALS.isdisjoint(_kinds(error))
    )


def is_ill(error: BaseException) -> bool:
    """Whether the store answered that it is not well."""
    code = code_of(error) or ""
    return code in ("InternalError", "ServiceUnavailable", "SlowDown") or code.startswith("5")


def is_unreachable(error: BaseException) -> bool:
    """Whether there was no answer at all."""
    return not _UNREACHABLE.isdisjoint(_kinds(error))


def explained(error: BaseException, verb: str, place: str) -> StorageError:
    """The error of an operation on a place, in words with a cure."""
    code, kinds = code_of(error), _kinds(error)
    said = masked(str(error) or type(error).__name__)
    store = masked(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    place = masked(place) + (f" at {store}" if store and place.startswith("s3") else "")
    if code == "NoSuchBucket":
        return StorageError(f"there is no such bucket: {place}", "make it, or correct the address")
    if kinds & _NO_CREDENTIALS:
        return StorageError(
            f"there are no credentials for {place}: {said}",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws in AWS_PROFILE",
        )
    if code in _BAD_CREDENTIALS:
        return StorageError(
            f"the credentials for {place} are refused: {said}",
            "correct AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile in AWS_PROFILE",
        )
    if isinstance(error, PermissionError):
        return StorageError(
            f"no permission to {verb} {place}: {said}",
            "let this user list, read, write and delete objects there",
        )
    if is_unreachable(error) or "Invalid endpoint" in said:
        return StorageError(
            f"{place} cannot be reached: {said}",
            "see that the network is up, and that AWS_ENDPOINT_URL is the store's address, or not set for AWS",
        )
    return StorageError(
        f"the store could not {verb} {place}: {type(error).__name__}: {said}",
        "run again: what is done is kept",
    )


def _kinds(error: BaseException) -> set[str]:
    return {type(one).__name__ for one in _chain(error)}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
