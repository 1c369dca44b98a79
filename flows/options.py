"""Options of the command line that several commands share, with the words that `--help` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.presets import PRESETS

MODEL, EVIDENCE, PAIRS, RUNNING, PICTURES = "Model", "Local evidence", "Pairs", "Running", "Pictures"

Model = Annotated[
    str | None,
    typer.Option(
        help="A folder with config.json and safetensors, a weights file, or a hub id such as conservationxlabs/miewid-msv3. "
        "Default: the embedded miniature, which serves to try, not to trust.",
        rich_help_panel=MODEL,
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Revision of a hub id. Known models are pinned.", rich_help_panel=MODEL)
]
Layer = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        help="Layer to explain, e.g. backbone.blocks.3; repeat for several, the first one ranks. Default: the model's own. "
        "Early layers point exactly, late layers mean more.",
        rich_help_panel=MODEL,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help=f"LRP preset: {PRESETS.listed()}. Default: published.",
        rich_help_panel=MODEL,
    ),
]
Reduction = Annotated[
    str | None,
    typer.Option(
        help="How the channels' relevances become one number per cell: abs_of_sum, signed_sum, sum_of_abs or positive_sum "
        "(what speaks for the similarity). Default: the preset's own.",
        rich_help_panel=MODEL,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Number format of relevances: float32 (default), tf32, bfloat16 or float16. The shorter ones are faster and "
        "round; forward passes keep the model's own.",
        rich_help_panel=MODEL,
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        help="Resize back end, 'pil' or 'opencv'. Use the one of the model's deployment.",
        rich_help_panel=MODEL,
    ),
]
Matcher = Annotated[
    str | None,
    typer.Option(
        help=f"Independent matcher for the homography: {LOCAL_MATCHERS.listed()}. Default: sift.",
        rich_help_panel=EVIDENCE,
    ),
]
MatcherWeights = Annotated[
    str | None, typer.Option(help="Folder with the matcher's safetensors files.", rich_help_panel=EVIDENCE)
]
Homography = Annotated[
    str | None,
    typer.Option(
        help="Estimator: magsac (robust, default) or least_squares (parity).", rich_help_panel=EVIDENCE
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="TOML file with any setting by name; options given here override it. `pairx settings` prints all.",
    ),
]


def overrides(**given: Any) -> dict[str, Any]:
    """Settings by name from options by name; what was not given is None."""
    layers = given.pop("layer", None)
    return {**given, "layers": tuple(layers) if layers else None}
