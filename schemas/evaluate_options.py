"""Options of an evaluation, each of them one field.

Its command-line option, its help, its key in a file's table `[evaluate]` and its checks follow from the
field.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import SettingsError
from schemas.setting import CHOOSING, FAITHFULNESS, MEASURING, Setting
from schemas.settings import explain_errors, read_toml

TABLE = "evaluate"
"""The table of a settings file that holds the options of an evaluation."""


def _several(value: Any) -> Any:
    """One value stands for a list of one."""
    return (value,) if isinstance(value, str | int) else value


class EvaluateOptions(BaseModel):
    """What an evaluation measures and how far; fields without a part of the help are set by file only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    per_photo: Annotated[int, Setting(MEASURING)] = Field(
        2, ge=1, description="Nearest photos of the same name, and of other names, per photo."
    )
    figures: Annotated[int, Setting(MEASURING)] = Field(12, ge=0, description="Outliers that get a figure.")
    resamples: Annotated[int, Setting(MEASURING)] = Field(
        200, ge=0, description="Resamples of animals for the intervals; 0: none."
    )
    bins: int = Field(10, ge=1, description="Bins of the cosine in Δ.")
    edges: Literal["equal_width", "quantile"] = Field("equal_width", description="Edges of the bins.")
    form: Literal["gaussian", "histogram"] = Field("gaussian", description="Distributions in Δ.")
    weights: Literal["pairs", "smaller_class", "equal"] = Field("pairs", description="A bin's weight in Δ.")
    minimum: int = Field(2, ge=2, description="Pairs of each class that a bin needs to count.")

    choose: Annotated[bool, Setting(CHOOSING, option="--choose")] = Field(
        False,
        description="Sweep layers, presets, reductions, matchers and estimators, and write the best as chosen.toml for "
        "`pairx run --settings`. The default is kept unless animals that were not looked at agree.",
    )
    try_layer: Annotated[tuple[str, ...], Setting(CHOOSING)] = Field(
        (), strict=False, description="Layer to try; repeatable. Default: those beside the model's own."
    )
    try_matcher: Annotated[tuple[str, ...], Setting(CHOOSING)] = Field(
        (),
        strict=False,
        description="Matcher to try, NAME or NAME=FOLDER of its weights; repeatable. Those that need none are always tried.",
    )
    sweep_pairs: Annotated[int, Setting(CHOOSING)] = Field(
        2000, ge=20, description="Most pairs that the sweep looks at."
    )
    folds: int = Field(3, ge=2, description="Folds of animals that the choice is tested in.")

    faithfulness: Annotated[int, Setting(FAITHFULNESS)] = Field(
        0,
        ge=0,
        description="Pairs, half of them of one name, whose explanations are put to the test by pixel flipping; 0: none.",
    )
    method: Annotated[tuple[str, ...], Setting(FAITHFULNESS)] = Field(
        (),
        strict=False,
        description="Way to explain that is tested; repeatable. Default: all but the dearest of `explain --methods`.",
    )
    continuity: Annotated[bool, Setting(FAITHFULNESS, option="--continuity")] = Field(
        False, description="Also shift the photo by 1 to 10 pixels and back; some 25 times as dear."
    )
    superpixel: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_several)] = Field(
        (5,),
        strict=False,
        min_length=1,
        description="Sides of superpixels, pixels; each is tried with each fill.",
    )
    steps: int = Field(20, ge=1, description="Steps of flipping.")
    share: float = Field(0.5, gt=0, le=1, description="Share of the superpixels that is flipped in the end.")
    fill: Annotated[tuple[Literal["noise", "mean", "blur"], ...], BeforeValidator(_several)] = Field(
        ("noise",),
        strict=False,
        min_length=1,
        description="What flipped pixels become; the first decides the rank.",
    )
    checks: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Checks beside flipping: partner, localisation, randomisation, witness, seconds. Default: all.",
    )

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        if (self.try_layer or self.try_matcher) and not self.choose:
            raise ValueError("try_layer and try_matcher say what --choose tries: add --choose")
        if (self.method or self.continuity) and not self.faithfulness:
            raise ValueError(
                "method and continuity say how faithfulness is tested: add --faithfulness with a number of pairs"
            )
        return self


def load_evaluate_options(toml: Path | None, overrides: Mapping[str, Any]) -> EvaluateOptions:
    """Defaults, overlaid by a file's table `[evaluate]`, overlaid by `overrides` (None means not given).

    Raises `SettingsError` that lists every bad key with its cure.
    """
    table = read_toml(toml).get(TABLE, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{toml}: {TABLE} is no table", f"write [{TABLE}] above its keys")
    values = table | {name: value for name, value in overrides.items() if value is not None}
    try:
        return EvaluateOptions.model_validate(values)
    except ValidationError as error:
        raise SettingsError(explain_errors(error, EvaluateOptions, toml)) from error
