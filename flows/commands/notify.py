"""`pairx run --notify`: a command of the user's gets the run's summary on standard input.

What it does or fails to do never changes the result of the run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flows.commands.start import note
from schemas.errors import SettingsError

SECONDS = 60.0
"""How long the command may take."""
_STANDARD_ERROR = 2


@dataclass(frozen=True)
class Hook:
    """The words of a command; no shell reads them."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, command: str) -> Hook:
        """The command, split as a shell would split it; `SettingsError` for one that cannot be started."""
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise SettingsError(
                f"--notify {command!r} cannot be read: {error}", "close every quotation mark"
            ) from error
        if not words:
            raise SettingsError("--notify names no command", "give a program and its arguments")
        if shutil.which(words[0]) is None:
            raise SettingsError(
                f"--notify: there is no program {words[0]!r}",
                "give its path; for pipes and variables let a shell read it: --notify \"sh -c '…'\"",
            )
        return cls(tuple(words))

    def tell(self, facts: Mapping[str, Any], seconds: float = SECONDS) -> None:
        """Give the command the facts as JSON; a failure is a warning.

        What it prints goes to standard error. After `seconds` it is ended with all that it started.
        """
        text = json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            process = subprocess.Popen(  # noqa: S603  # the user's own words, and no shell
                self.words, stdin=subprocess.PIPE, stdout=_STANDARD_ERROR, start_new_session=True
            )
        except OSError as error:
            note(f"--notify could not be started: {error.strerror}")
            return
        try:
            process.communicate(text, seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            note(f"--notify took longer than {seconds:g} s and was ended")
            return
        except BaseException:
            _end(process)
            raise
        if process.returncode:
            note(f"--notify ended with {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
