"""Errors of the engine: each says what, where and the cure."""

from __future__ import annotations


class EngineError(ValueError):
    """Base of everything the engine refuses."""


class ModelError(EngineError):
    """A model or its weights could not be found, read or matched to its architecture."""


class PhotoError(EngineError):
    """One photo could not become a chip.

    `code` is a value of the closed set of failure codes (`schemas.failures.FailureCode`); the batch job turns the error
    into a row of the failures table and goes on.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str]]:
        return type(self), (self.code, str(self))
