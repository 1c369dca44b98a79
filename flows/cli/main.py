"""The `pairx` command line.

Start-up imports neither torch nor Prefect: each command loads what it needs.
"""

from __future__ import annotations

import inspect
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.compare import compare
from flows.cli.evaluate import evaluate
from flows.cli.review import review
from flows.options import WAIT, Config, SettingsCommand
from schemas.setting import MODEL
from schemas.sql.files import suspect_rules

_INTERRUPTED, _TERMINATED = 130, 143
_STOPPED = "stopped; what is done is kept, run the same command to go on"
_heard: list[int] = []
"""Exit codes of the signals that were heard."""

app = typer.Typer(
    name="pairx",
    help="PAIR-X for whole catalogues: explain every retrieved pair of animal photos, store the evidence as Parquet, "
    "rank the suspect matches. Exit codes: 0 done, 1 the work failed (what is done is kept; run again), 2 bad input, "
    "3 another run is at work on the warehouse, 130 or 143 stopped by hand (run again to go on).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        with suppress(PackageNotFoundError):
            print(f"pairx {version('pairx-pipeline')}")
            raise typer.Exit
        print("pairx, not installed: run from its source")
        raise typer.Exit


@app.callback()
def _before_commands(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None: ...


def _kinds_help() -> str:
    return "; ".join(f"{kind}: {rule.about}" for kind, rule in suspect_rules().items())


@app.command(cls=SettingsCommand)
def run(
    context: typer.Context,
    catalogue: Annotated[
        str,
        typer.Argument(
            help="CSV or Parquet with image_id, identity, path (and bbox, theta, species, date, encounter, …), "
            "Camtrap DP (its folder or datapackage.json), COCO Camera Traps (.json), or Wildbook's CSV."
        ),
    ],
    warehouse: Annotated[
        str, typer.Option(help="Folder or fsspec URL that the tables go to; grows with every run.")
    ] = "warehouse",
    root: Annotated[
        str | None,
        typer.Option(help="Folder or URL that paths are relative to. Default: the catalogue's folder."),
    ] = None,
    settings: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its estimated time; write nothing.")
    ] = False,
    withdraw_missing: Annotated[
        bool,
        typer.Option(
            "--withdraw-missing",
            help="The catalogue is complete: photos that it no longer lists are withdrawn.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Try failed photos and pairs again, though nothing about them changed."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help=WAIT)] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(help="failures: end with 1 where any photo or pair failed in this run; for schedulers."),
    ] = None,
) -> None:
    """Process a catalogue: embed new photos, pair them, score and rank; only what is new costs anything.

    Stop it anywhere and run the same command again: it goes on where it was.
    """
    from flows.commands.run import run_catalogue

    how = (dry_run, withdraw_missing, retry_failed, wait, fail_on)
    run_catalogue(catalogue, warehouse, root, settings, context.obj, *how)


app.command(cls=SettingsCommand)(evaluate)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed draws other animals.")] = 0,
    top: Annotated[int, typer.Option(help="How many suspects to print and to check against the truth.")] = 20,
    workers: Annotated[int | None, typer.Option(help="Worker processes. Default: one per core.")] = None,
) -> None:
    """Draw a catalogue with planted errors, run the whole nightly job on it and show what it found."""
    from flows.demo.run import run_demo

    run_demo(out, seed, top, workers)


def _list_methods(wanted: bool) -> None:
    if wanted:
        from flows.commands.explain import print_methods

        print_methods()
        raise typer.Exit


@app.command(cls=SettingsCommand)
def explain(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A", help="First photo.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Second photo.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure, PNG.")] = Path("pairx.png"),
    arrays: Annotated[Path | None, typer.Option(help="Also write all arrays, NumPy .npz.")] = None,
    box_a: Annotated[str | None, typer.Option(help="x,y,w,h of the animal in A, pixels.")] = None,
    box_b: Annotated[str | None, typer.Option(help="x,y,w,h of the animal in B, pixels.")] = None,
    maps: Annotated[int, typer.Option(help="Matches propagated back to the pixels.", min=0)] = 10,
    lines: Annotated[int, typer.Option(help="Match lines drawn.", min=1)] = 20,
    method: Annotated[
        str | None,
        typer.Option(
            help="Another way to explain, one of those that --methods lists. Default: PAIR-X under the preset."
        ),
    ] = None,
    methods: Annotated[
        bool,
        typer.Option(
            "--methods", callback=_list_methods, is_eager=True, help="List all ways to explain and stop."
        ),
    ] = False,
    warehouse: Annotated[
        str | None, typer.Option(help="Warehouse in which the method has learned, if it must.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layer", help="Layer to explain.", rich_help_panel=MODEL)
    ] = None,
) -> None:
    """Explain one pair of photos: why does the model think that they match?"""
    from flows.commands.explain import explain_photos

    given = context.obj | {"layers": (layers,) if layers else None, "n_pixel_maps": maps, "n_lines": lines}
    explain_photos((first, second), (box_a, box_b), out, arrays, given, method, warehouse)


app.command(cls=SettingsCommand)(compare)
app.add_typer(review, name="review")


@app.command()
def validate(
    catalogue: Annotated[str, typer.Argument(help="Catalogue: CSV, Parquet, Camtrap DP, COCO or Wildbook.")],
    root: Annotated[str | None, typer.Option(help="Folder or URL that paths are relative to.")] = None,
) -> None:
    """Check a catalogue, list all its problems and count the photos that are there; opens none."""
    from flows.commands.run import validate_catalogue

    validate_catalogue(catalogue, root)


@app.command()
def suspects(
    warehouse: Annotated[str, typer.Option(help="Folder or fsspec URL of the tables.")] = "warehouse",
    top: Annotated[int, typer.Option(help="How many to print.", min=1)] = 20,
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"Print only this kind; may be given several times. {_kinds_help()}."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="Order: probability, or kind (photos first, names next, copies last)."),
    ] = "probability",
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Print the ranked suspects: one row per photo, name or copy whose name does not fit the pictures.

    The probability says how likely the names are wrong in this way; of a copy it is how well the two pictures
    agree.

    The expected share so far is the mean probability of a row and all that rank before it, printed or not:
    the share of real errors to be expected among them. Where it has become too small for your time, stop
    reading.
    """
    from flows.commands.ask import print_suspects

    print_suspects(warehouse, top, kind or [], by, output)


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT. Without it an interactive prompt opens.")
    ] = None,
    warehouse: Annotated[str, typer.Option(help="Folder or fsspec URL of the tables.")] = "warehouse",
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    tables: Annotated[
        bool, typer.Option("--tables", help="Describe all tables, or the one named instead of a query.")
    ] = False,
    cookbook: Annotated[bool, typer.Option("--cookbook", help="Print ready-made queries.")] = False,
    run_id: Annotated[str | None, typer.Option("--run", help="Look at an earlier run's settings.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds that opening the warehouse and the query may take, or each statement of the prompt. "
            "Default: no limit; Ctrl-C stops at once.",
            min=0.001,
        ),
    ] = None,
    memory_limit: Annotated[
        str, typer.Option(help="Memory that views and query may take; up to 20GB more go to disk.")
    ] = "2GB",
) -> None:
    """Ask the warehouse in SQL, read only, through views over all tables.

    They show current rows only, as of the newest finished run.
    """
    from flows.commands.ask import ask, print_cookbook

    if cookbook:
        print_cookbook()
        return
    ask(warehouse, query, output, tables, run_id, timeout, memory_limit)


@app.command()
def report(
    warehouse: Annotated[str, typer.Option(help="Folder or fsspec URL of the tables.")] = "warehouse",
) -> None:
    """Print the address of the newest run's report."""
    from flows.commands.ask import newest_report

    newest_report(warehouse)


@app.command()
def check(
    warehouse: Annotated[str, typer.Option(help="Folder or fsspec URL of the tables.")] = "warehouse",
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at footers, sizes and the listing alone; read no rows.")
    ] = False,
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine",
            help="Move what is damaged, and what must go with it, to the folder quarantine/ of the warehouse; the next run computes "
            "it again.",
        ),
    ] = False,
) -> None:
    """Check that a warehouse is what its runs wrote: every byte, every column, and how rows relate.

    Bytes are compared with the digests that runs recorded. Of files that no run recorded (it was killed,
    or older than the record) the page checksums and the footer's statistics are compared with the rows.
    Exit code 1 where anything was found, also if it was moved aside.
    """
    from flows.commands.check import check_warehouse

    check_warehouse(warehouse, quick, quarantine)


@app.command("settings")
def show_settings() -> None:
    """Print all settings with their defaults as a TOML file to start from."""
    from flows.commands.settings import print_settings

    print_settings()


for _command in app.registered_commands:
    # Typer keeps the line breaks of docstrings, which do not suit the width of the reader's terminal.
    _command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(_command.callback) or "")


def main() -> None:
    """Entry point: every error becomes one message and an exit code, without a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _interrupt)
    code = _run()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed by now. Prefect keeps the frames of the last exception alive until the interpreter
    # ends, and DuckDB's bindings would print a page about leaked objects. A stopped task may still hang in a
    # thread.
    os._exit(code)


class _Terminated(BaseException):
    """SIGTERM arrived; it unwinds the stack as Ctrl-C does, so that the cluster and the server stop."""


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _heard.append(_TERMINATED)
    raise _Terminated


def _interrupt(number: int, frame: object) -> None:
    _heard.append(_INTERRUPTED)
    raise KeyboardInterrupt


def _run() -> int:
    _heard.clear()
    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            # Typer turns Ctrl-C into this exit code before any other code sees it.
            return _say(_STOPPED, _INTERRUPTED)
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except _Terminated:
        return _say(_STOPPED, _TERMINATED)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if _heard and _of_a_signal(error):
            return _say(_STOPPED, _heard[-1])
        from flows.cli.messages import message_of

        return _say(*message_of(error))
    return 0


def _of_a_signal(error: BaseException | None) -> bool:
    """Whether an error comes of a signal.

    On the way out something else may have failed, or a library may have said it in its own way: DuckDB of an
    interrupted query, pydantic by the name of the exception that it was left by.
    """
    if _heard[-1] == _TERMINATED:
        return True
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or str(error) == "Query interrupted":
            return True
        if KeyboardInterrupt.__name__ in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _say(message: object, code: int) -> int:
    from schemas.foreign_text import printable_lines

    print(printable_lines(f"pairx: {message}"), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
