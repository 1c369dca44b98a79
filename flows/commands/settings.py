"""`pairx settings`: all settings as a TOML file to start from."""

from __future__ import annotations

import json

from flows.options import description
from schemas.settings import Settings


def print_settings() -> None:
    """All settings with their defaults, as TOML."""
    for name, field in Settings.model_fields.items():
        value = field.get_default()
        shown = json.dumps(list(value) if isinstance(value, tuple) else value)
        print(
            f"# {description(name, field)}\n{'# ' if value is None else ''}{name} = {'…' if value is None else shown}\n"
        )
