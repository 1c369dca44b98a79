"""What a part of the check finds: figures and what is wanted of them, in a file that outlives it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STATES = ("ok", "failed", "timed out", "cut short", "not available", "skipped")
"""What may become of a part.

`failed`: it raised, or numbers are beyond their tolerance; an aim that is missed fails nothing.
"""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    `wanted` says in words what is wanted of it, `met` whether it was, None where nothing is.

    `aim` marks a goal of speed; what is no aim is a check of numbers, and one that is not met fails its part.
    """

    what: str
    value: float | int | str | None
    unit: str = ""
    wanted: str = ""
    met: bool | None = None
    aim: bool = False


@dataclass
class Findings:
    """All that one part has found so far.

    Every addition is written to `path`, so that a part that is ended loses nothing.
    """

    path: Path
    state: str = "failed"
    """Until it has ended well a part counts as failed."""
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    cut: bool = False

    def figure(self, what: str, value: float | int | str | None, unit: str = "") -> None:
        """Note a figure of which nothing is wanted."""
        self._add(Figure(what, value, unit))

    def at_most(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """Note a figure that must not exceed a limit."""
        self._add(Figure(what, value, unit, f"≤ {limit:.3g}", bool(value <= limit)))

    def at_least(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """Note a figure that must reach a limit."""
        self._add(Figure(what, value, unit, f"≥ {limit:.3g}", bool(value >= limit)))

    def aim(self, what: str, value: float, wanted: str, met: bool | None, unit: str = "") -> None:
        """Note a figure that there is a goal for; `met` is None where the goal is meant for another device."""
        self._add(Figure(what, value, unit, wanted, met, aim=True))

    def lacks(self, what: str, why: object) -> None:
        """Note that something could not be measured here."""
        self._add(Figure(what, "not available", wanted=str(why)))

    def note(self, text: str) -> None:
        """Note something in words."""
        self.notes.append(text)
        self.write()

    def cut_short(self, what: str) -> None:
        """Note what was left out because time ran short."""
        self.cut = True
        self.note(f"cut short, left out: {what}")

    def detail(self, name: str, value: Any) -> None:
        """Keep something for the JSON file alone."""
        self.details[name] = value
        self.write()

    def end(self) -> None:
        """Settle the state of a part that came to its end."""
        wrong = [f.what for f in self.figures if f.met is False and not f.aim]
        self.state = "failed" if wrong else "cut short" if self.cut else "ok"
        if wrong:
            self.notes.append(f"beyond tolerance: {'; '.join(wrong)}")
        self.write()

    def write(self) -> None:
        """Write everything, whole or not at all."""
        part = self.path.with_suffix(".part")
        part.write_text(
            json.dumps(plain(asdict(self) | {"path": self.path.name}), indent=1), encoding="utf-8"
        )
        os.replace(part, self.path)

    def _add(self, figure: Figure) -> None:
        self.figures.append(figure)
        self.write()
        print(f"{figure.what}: {figure.value} {figure.unit} {figure.wanted}", flush=True)


def read_findings(path: Path) -> Findings:
    """What a part has left, complete or not."""
    if not path.is_file():
        return Findings(path)
    told = json.loads(path.read_text(encoding="utf-8"))
    return Findings(**{**told, "path": path, "figures": [Figure(**f) for f in told["figures"]]})


def plain(value: Any) -> Any:
    """As JSON holds it: NaN and infinity become null, other types of numbers Python's own."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, str | bool):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | bool) else str(value)
