"""Command-line options made from the fields of the settings' models."""

from __future__ import annotations

import inspect
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from schemas.setting import CATALOGUE, EVIDENCE, MODEL, RUNNING, Setting

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PANELS = {
    "explain": (MODEL, EVIDENCE),
    "compare": (MODEL,),
    "evaluate": (CATALOGUE, MODEL, EVIDENCE, RUNNING),
    "validate": (CATALOGUE,),
    "apply": (CATALOGUE,),
}
"""The parts of the settings that a command offers as options; other commands offer all."""

Config = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="TOML file with any setting by name; options given here override it. `pairx settings` prints all.",
    ),
]

Tables = Annotated[str, typer.Option("--warehouse", help="Folder or fsspec URL of the tables.")]
Root = Annotated[
    str | None,
    typer.Option("--root", help="Folder or URL that paths are relative to. Default: the catalogue's folder."),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Where another run is at work on the warehouse, wait until it has finished. Default: say who it is and end with 3.",
    ),
]

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print no progress; errors, notes and results are printed all the same."
    ),
]


def _told_shortly(parameters: list[Any], ctx: Any) -> list[Any]:
    """The parameters, with nothing behind a flag in the help, which takes no value, and plain names of types."""
    for parameter in parameters:
        shown = parameter.display_type_rich(ctx) if hasattr(parameter, "display_type_rich") else None
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif shown and parameter.param_type_name == "option":
            parameter.metavar = shown.replace(" range", "")
    return parameters


class Command(TyperCommand):
    """A command whose help shows types only where a value is to be given."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters."""
        return _told_shortly(super().get_params(ctx), ctx)


class Group(TyperGroup):
    """The commands, with help as that of a command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters."""
        return _told_shortly(super().get_params(ctx), ctx)


class SettingsCommand(Command):
    """A command with settings among its options; its context's `obj` holds their values, None if absent.

    The options are made when they are first asked for: settings cost the import of pydantic, and help on
    all commands need not wait for it. A parameter of the command itself goes before the setting of that
    name.
    """

    @cached_property
    def _settings(self) -> list[Any]:
        return _options(self.name)

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, then the settings, then --help."""
        *own, help_option = super().get_params(ctx)
        left = {parameter.name: parameter for parameter in own}
        settings = [left.pop(option.name, option) for option in self._settings]
        return _told_shortly([*left.values(), *settings, help_option], ctx)

    def invoke(self, ctx: Any) -> Any:
        """Run the command's function."""
        names = {option.name for option in self._settings} - {own.name for own in self.params}
        ctx.obj = {name: _given(ctx.params.pop(name)) for name in names}
        return super().invoke(ctx)


def description(name: str, field: FieldInfo) -> str:
    """What a setting means, in words for users."""
    if name == "cluster":
        from flows.clusters.choice import offered

        return offered()
    import tasks  # noqa: F401  # enters what settings may name
    from schemas.settings import OFFERS

    text = str(field.description)
    return (
        f"{text.removesuffix('.')}: {OFFERS[name].listed()}. Default: {field.default}."
        if name in OFFERS
        else text
    )


def _options(command: str | None) -> list[Any]:
    """The settings that a command offers, as options that are None unless given.

    Those of `pairx evaluate` alone come first.
    """
    from schemas.evaluate_options import EvaluateOptions
    from schemas.settings import Settings

    def taker() -> None: ...

    own = EvaluateOptions.model_fields if command == "evaluate" else {}
    fields = {name: field for name, field in own.items() if Setting.of(field).panel}
    fields |= {name: field for name, field in Settings.model_fields.items() if _offers(command, field)}
    made = [_parameter(name, field) for name, field in fields.items()]
    taker.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]  # what Typer reads options from
    app = typer.Typer(add_completion=False)
    app.command()(taker)
    return list(get_command(app).params)


def _offers(command: str | None, field: FieldInfo) -> bool:
    panel = Setting.of(field).panel
    return panel is not None and panel in PANELS.get(command or "", (panel,))


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    about, words = Setting.of(field), description(name, field)
    types = (field.annotation, *get_args(field.annotation))
    several = get_origin(field.annotation) is tuple
    kind: Any = list[str] if several else next((t for t in (bool, int, float) if t in types), str)
    if kind in (int, float) and field.default is not None:
        words = f"{words.removesuffix('.')} [{field.default}]."
    choices = _choices(name, field)
    option = typer.Option(
        *filter(None, [about.option]),
        help=words,
        rich_help_panel=about.panel,
        autocompletion=(lambda: choices) if choices else None,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _choices(name: str, field: FieldInfo) -> list[str]:
    """What a shell offers as values of a setting; none where anything may stand."""
    from schemas.settings import OFFERS

    kinds = (field.annotation, *get_args(field.annotation))
    listed = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    return listed or list(OFFERS.get(name, ()))


def _given(value: Any) -> Any:
    """The value of an option; None for a repeatable one that was not given."""
    return (tuple(value) or None) if isinstance(value, list | tuple) else value
