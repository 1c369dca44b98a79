"""Redraw the sources' figures on real photos, as one page.

python -m tests.benchmarks.faithfulness.figures --out PAGE.html [--only faces,cows/mini_miewid]

* PAIR-X, Figure 2: one pair under many methods, for a true and a false pair (`pairx compare`).
* ExplainLFS, Figures 7 and 8: a query beside its most and its least similar photo, with maps and what the
  decoder makes of each photo.
* ExplainLFS, Figure 11: continuity; Figures 12 to 14: selectivity of similar and of dissimilar pairs, and
  beside other methods.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jinja2 import Environment
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from flows.notebook import compare
from pairx_engine.errors import PairxError
from pairx_engine.explanations import State, Trained, explain, explanation_named
from pairx_engine.faithfulness import Flipping, Translation
from pairx_engine.figure import encode_png
from pairx_engine.relevance.suitable import suitable_presets
from tasks.pages import base
from tasks.pages.base import page_environment
from tests.benchmarks.cases import SHARED
from tests.benchmarks.faithfulness.cases import CASES, Case, Loaded, load
from tests.benchmarks.faithfulness.curves import continuity_curves, selectivity

COMPARED = ("explain_lfs_linear", "explain_lfs_conv", "simexpert", "utkin", "tummala", "gradient")
"""Methods of the curves, beside PAIR-X and its relevance in pixels under the first preset that suits the network."""
CONTROLS = ("centre", "random")
DECODED = ("explain_lfs_linear", "explain_lfs_conv")
_TEMPLATE = """{% extends "base.html.j2" %}
{% block title %}Figures of the sources, redrawn{% endblock %}
{% block masthead %}<h1>Figures of the sources, redrawn</h1>{% endblock %}
{% block main %}
{% for case in cases %}<h2>{{ case.name }}</h2>
{% for picture in case.pictures %}<section class="card"><h3>{{ picture.title }}</h3><p>{{ picture.about }}</p>
<img alt="{{ picture.title }}" style="max-width:100%" src="{{ picture.data }}"></section>{% endfor %}
{% for reason in case.failed %}<p>{{ reason }}</p>{% endfor %}{% endfor %}{% endblock %}"""


def main(words: Sequence[str] | None = None) -> int:
    """Draw what was asked for and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.faithfulness.figures", description=__doc__
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="Folder with data/ and models/.")
    parser.add_argument("--out", type=Path, required=True, help="The page, HTML.")
    parser.add_argument(
        "--only", default="faces,cows/mini_miewid", help="Beginnings of cases, separated by commas."
    )
    parser.add_argument("--pairs", type=int, default=10, help="Pairs of each class in the curves.")
    given = parser.parse_args(words)
    cases = []
    for case in CASES:
        if case.name.startswith(tuple(given.only.split(","))):
            cases.append(_case(case, given.shared, given.pairs))
            print(case.name, file=sys.stderr, flush=True)
    environment = page_environment(Path(base.__file__).parent, {})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(_page(environment, cases), encoding="utf-8")
    return 0


def _page(environment: Environment, cases: Sequence[Mapping[str, Any]]) -> str:
    return environment.from_string(_TEMPLATE).render(cases=cases)


def _case(case: Case, shared: Path, count: int) -> dict[str, Any]:
    loaded = load(case, shared)
    states: dict[str, State] = {}
    methods, failed = [], []
    first = loaded.pairs[0]
    preset = suitable_presets(loaded.subject.network)[0]
    for name in (*COMPARED, f"pairx_{preset}", f"lrp_{preset}", *CONTROLS):
        try:
            explanation = explanation_named(name)
            if isinstance(explanation, Trained):
                states[name] = explanation.train(loaded.subject, loaded.named_chips()[: explanation.photos])
            explain(name, loaded.subject, *_chips(loaded, first), states.get(name))
            methods.append(name)
        except PairxError as error:
            failed.append(f"{name}: {str(error).splitlines()[0]}")
    pictures = [_sheet(case, loaded, shared, correct) for correct in (True, False)]
    pictures += [_neighbours(loaded, name, states) for name in DECODED if name in methods]
    pictures.append(_continuity(loaded, methods, states, count))
    pictures += _selectivity(loaded, methods, states, count)
    return {"name": case.name, "pictures": pictures, "failed": failed}


def _chips(loaded: Loaded, pair: Mapping[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    return loaded.chips[pair["photo_a"]], loaded.chips[pair["photo_b"]]


def _sheet(case: Case, loaded: Loaded, shared: Path, correct: bool) -> dict[str, Any]:
    """A pair of one name, or of two, under a method or two of each family."""
    pair = next(pair for pair in loaded.pairs if pair["correct"] is correct)
    photos = [loaded.files[pair[side]] for side in ("photo_a", "photo_b")]
    found = compare(*photos, model=str(shared / "models" / case.model), layers=(loaded.subject.layer,))
    title = f"A pair of {'one name' if correct else 'two names'} under many methods"
    png = base64.b64encode(encode_png(found.drawn.sheet)).decode()
    return {"title": title, "about": found.line, "data": f"data:image/png;base64,{png}"}


def _neighbours(loaded: Loaded, method: str, states: Mapping[str, State]) -> dict[str, Any]:
    """A query beside its most and its least similar photo."""
    photos = sorted(loaded.chips)
    with torch.no_grad():
        vectors = torch.cat([loaded.subject.network(loaded.chips[photo][None]) for photo in photos])
    vectors = torch.nn.functional.normalize(vectors.double(), dim=1)
    query = 0
    cosines = vectors @ vectors[query]
    cosines[query] = torch.nan
    ends = int(cosines.nan_to_num(-2).argmax()), int(cosines.nan_to_num(2).argmin())
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, 6)
    for row, end in zip(axes, ends, strict=True):
        chips = [loaded.chips[photos[i]] for i in (query, end)]
        found = explain(method, loaded.subject, *chips, states[method])
        for side, chip in enumerate(chips):
            picture = loaded.values.pixels(chip)
            shown = (
                picture,
                found.arrays[f"reconstruction{side}"],
                _laid_over(picture, found.arrays[f"after{side}"]),
            )
            for axis, one, title in zip(row[3 * side :], shown, ("photo", "decoded", "map"), strict=False):
                axis.imshow(np.clip(one, 0, 255 if one.dtype == np.uint8 else 1))
                axis.set_title(title, fontsize=8)
                axis.set_axis_off()
        row[0].text(0, -0.1, f"cosine {float(cosines[end]):.2f}", transform=row[0].transAxes, fontsize=9)
    about = "A query with its most similar photo above and its least similar one below."
    return {"title": f"{method}: most and least similar", "about": about, "data": _data(figure)}


def _laid_over(picture: NDArray[np.uint8], relevance: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = np.linspace(0, relevance.shape[0] - 1, picture.shape[0]).round().astype(int)
    columns = np.linspace(0, relevance.shape[1] - 1, picture.shape[1]).round().astype(int)
    heat = np.asarray(relevance, dtype=np.float64)[np.ix_(rows, columns)]
    colour = mpl.colormaps["inferno"](heat)[..., :3]
    return np.asarray(np.where(heat[..., None] > 0, 0.3 * picture / 255 + 0.7 * colour, picture / 255 * 0.6))


def _continuity(
    loaded: Loaded, methods: Sequence[str], states: Mapping[str, State], count: int
) -> dict[str, Any]:
    photos = min(count, 4)
    curves = continuity_curves(loaded, methods, states, photos, Translation())
    figure = _lines(
        {method: (range(1, len(curve) + 1), curve) for method, curve in curves.items()},
        "step: to the right, and back",
        "difference of both maps",
    )
    about = (
        f"A photo and its moved copy as a pair, after Figure 11; maps scaled to length one; {photos} photos. "
        "Low is steady."
    )
    return {"title": "Continuity", "about": about, "data": _data(figure)}


def _selectivity(
    loaded: Loaded, methods: Sequence[str], states: Mapping[str, State], count: int
) -> list[dict[str, Any]]:
    found = selectivity(loaded, methods, states, count, Flipping())
    about = {
        "Selectivity, similar pairs": (
            found.most,
            "Most relevant first, after Figures 12 and 14. Low is selective.",
        ),
        "The opposite order": (
            found.least,
            "Least relevant first, which the source does not show. High is better.",
        ),
        "Selectivity, dissimilar pairs": (
            found.dissimilar,
            "Both photos flipped, most relevant first, after Figure 13.",
        ),
    }
    pictures = []
    for title, (curves, text) in about.items():
        areas = {method: float(np.trapezoid(curve) / (len(curve) - 1)) for method, curve in curves.items()}
        figure = _lines(
            {
                f"{method} ({areas[method]:.2f})": (range(len(curve)), curve)
                for method, curve in curves.items()
            },
            "step of flipping",
            "mean cosine",
        )
        pictures.append(
            {"title": title, "about": f"{text} Areas in brackets; {count} pairs.", "data": _data(figure)}
        )
    return pictures


def _lines(curves: Mapping[str, tuple[range, NDArray[np.float64]]], across: str, up: str) -> Figure:
    """Curves with their names beside them; those of methods that know nothing are dotted."""
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axis = figure.subplots()
    for name, (steps, curve) in curves.items():
        axis.plot(steps, curve, label=name, linestyle=":" if name.startswith(CONTROLS) else "-")
    axis.set(xlabel=across, ylabel=up)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right center", fontsize=7)
    return figure


def _data(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    sys.exit(main())
