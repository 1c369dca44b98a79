"""The base of all errors that a user meets, and the engine's errors.

Each message says what went wrong and where, and how to cure it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The name that was probably meant, as words to put behind an error; empty where none is near."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(given.casefold(), names, n=1)
    if not near and len(given) > 2:
        near = [folded for folded in names if folded.startswith(given.casefold())][:1]
    return f"; did you mean {names[near[0]]}?" if near else ""


class PairxError(Exception):
    """Base of everything that stops a command with a message instead of a traceback.

    `message` says what went wrong and where, `cure` what to do about it.
    """

    exit_code: ClassVar[int] = 1
    """Exit code of a command: 1 where the work failed, 2 where the input cannot be used."""
    ends_the_run: ClassVar[bool] = True
    """Whether every other photo or pair would meet this error too.

    If not, it is a failure only of the photo or pair that raised it.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message, cure)
        self.message = message
        self.cure = cure

    def __reduce__(self) -> tuple[Any, ...]:
        # By default Dask rebuilds an error through its first built-in base, which some of these errors do not
        # allow.
        return type(self), self.args

    def __str__(self) -> str:
        return f"{self.message}\n  cure: {self.cure}" if self.cure else self.message


class EngineError(PairxError, ValueError):
    """Base of everything the engine refuses."""

    exit_code = 2
    ends_the_run = False


class ModelError(EngineError):
    """A model or its weights could not be found, read or matched to its architecture."""

    ends_the_run = True


class PhotoError(EngineError):
    """One photo could not become a chip.

    `code` is one of the failure codes (`schemas.failures.FailureCode`). The batch job turns the error into a
    row of the failures table and goes on.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str]]:
        return type(self), (self.code, self.message)
