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

from flows.cli.ask import report, sql, suspects
from flows.cli.compare import compare
from flows.cli.evaluate import evaluate
from flows.cli.review import review
from flows.cli.run import run
from flows.cli.runs import runs
from flows.cli.verdicts import apply
from flows.cli.who import who
from flows.options import Command, Config, Group, Quiet, Root, SettingsCommand, Tables
from schemas.setting import MODEL

_INTERRUPTED, _TERMINATED = 130, 143
_STOPPED = "stopped; what is done is kept, run the same command to go on"
_heard: list[int] = []
"""Exit codes of the signals that were heard."""

app = typer.Typer(
    name="pairx",
    cls=Group,
    help="PAIR-X for whole catalogues: explain every retrieved pair of animal photos, store the evidence as Parquet, "
    "rank the suspect matches. Exit codes: 0 done, 1 the work failed (what is done is kept; run again), 2 bad input, "
    "3 another run is at work on the warehouse, 4 the run is done and found new suspects (--fail-on new-suspects), 130 or 143 stopped by hand (run again to go on).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=True,
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


app.command(cls=SettingsCommand)(run)
app.command(cls=SettingsCommand)(evaluate)


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed draws other animals.")] = 0,
    top: Annotated[int, typer.Option(help="How many suspects to print and to check against the truth.")] = 20,
    workers: Annotated[int | None, typer.Option(help="Worker processes. Default: one per core.")] = None,
    quiet: Quiet = False,
) -> None:
    """Draw a catalogue with planted errors, run the whole nightly job on it and show what it found."""
    from flows.demo.run import run_demo

    run_demo(out, seed, top, workers, quiet)


def _list_methods(wanted: bool) -> None:
    if wanted:
        from flows.commands.explain import print_methods

        print_methods()
        raise typer.Exit


@app.command(cls=SettingsCommand)
def explain(
    context: typer.Context,
    first: Annotated[
        str, typer.Argument(metavar="A", help="First photo: a file or, with --warehouse, a photo_id.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Second photo.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure, PNG.")] = Path("pairx.png"),
    arrays: Annotated[Path | None, typer.Option(help="Also write all arrays, NumPy .npz.")] = None,
    plain: Annotated[
        Path | None,
        typer.Option(help="Also write both photos as they stand in the figure, nothing drawn; PNG."),
    ] = None,
    local_matches: Annotated[
        bool,
        typer.Option("--local-matches", help="Also show the local matches that carry the homography."),
    ] = False,
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
        str | None,
        typer.Option(
            help="Warehouse of the photos, seen as its newest run saw them; says how the pair stands among its pairs. Methods take "
            "from it what they learned."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layer", help="Layer to explain.", rich_help_panel=MODEL)
    ] = None,
) -> None:
    """Explain one pair of photos: why does the model think that they match?

    Give two files, or two photos of a warehouse by their ids: pairx explain --warehouse W D00073 D00279.
    """
    from flows.commands.explain import Outputs, explain_photos

    given = context.obj | {"layers": (layers,) if layers else None, "n_pixel_maps": maps, "n_lines": lines}
    outputs = Outputs(out, local_matches, plain, arrays)
    explain_photos((first, second), (box_a, box_b), outputs, method, given, warehouse)


app.command(cls=SettingsCommand)(compare)


@app.command(cls=SettingsCommand)
def validate(
    context: typer.Context,
    catalogue: Annotated[str, typer.Argument(help="Catalogue: CSV, Parquet, Camtrap DP, COCO or Wildbook.")],
    root: Root = None,
    settings: Config = None,
) -> None:
    """Check a catalogue, list all its problems and count the photos that are there; opens none.

    It says which columns are read as what, and which are not used.

    Example: pairx validate catalogue.csv --root /data/photos
    """
    from flows.commands.run import validate_catalogue

    validate_catalogue(catalogue, root, settings, context.obj)


app.command(cls=Command)(suspects)
app.command(cls=Command)(who)
app.command(cls=Command)(sql)
app.command(cls=Command)(report)
app.command(cls=Command)(runs)


@app.command(cls=Command)
def check(
    warehouse: Tables = "warehouse",
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
    quiet: Quiet = False,
) -> None:
    """Check that a warehouse is what its runs wrote: every byte, every column, and how rows relate.

    Bytes are compared with the digests that runs recorded. Of files that no run recorded (it was killed,
    or older than the record) the page checksums and the footer's statistics are compared with the rows.
    Exit code 1 where anything was found, also if it was moved aside.
    """
    from flows.commands.check import check_warehouse

    check_warehouse(warehouse, quick, quarantine, quiet)


app.add_typer(review, name="review")
app.command("apply", cls=SettingsCommand)(apply)


@app.command("settings", cls=Command)
def show_settings() -> None:
    """Print all settings with their defaults as a TOML file to start from."""
    from flows.commands.settings import print_settings

    print_settings()


for _command in (*app.registered_commands, *review.registered_commands):
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
        from flows.messages import message_of

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

    if os.environ.get("PAIRX_LOG_FORMAT") == "json":
        from flows.log_format import say

        stopped = code in (_INTERRUPTED, _TERMINATED)
        say(
            "stopped" if stopped else "error", str(message), "warning" if stopped else "error", exit_code=code
        )
        return code
    print(printable_lines(f"pairx: {message}"), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
