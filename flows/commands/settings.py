"""`pairx settings`: all settings as a TOML file to start from."""

from __future__ import annotations

import json

from pydantic import BaseModel

from flows.options import description
from schemas.evaluate_options import TABLE, EvaluateOptions
from schemas.settings import Settings


def print_settings() -> None:
    """Print all settings with their defaults as TOML; those of an evaluation have a table of their own."""
    _print(Settings)
    print(f"\n[{TABLE}]\n")
    _print(EvaluateOptions)


def _print(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        value = field.get_default()
        shown = json.dumps(list(value) if isinstance(value, tuple) else value)
        print(f"# {description(name, field)}")
        print(f"{'# ' if value is None else ''}{name} = {'…' if value is None else shown}\n")
