"""The ways to explain a pair, by name.

A family is a function that lists its members; `register` adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from torch import Tensor

from pairx_engine.errors import EngineError, did_you_mean
from pairx_engine.explanations.cams import cams
from pairx_engine.explanations.cell_points import points_of_cells
from pairx_engine.explanations.cell_products import cell_products
from pairx_engine.explanations.controls import controls
from pairx_engine.explanations.diff_cam import diff_cam
from pairx_engine.explanations.explain_lfs import explain_lfs
from pairx_engine.explanations.full_grad import full_gradients
from pairx_engine.explanations.gradients import gradients
from pairx_engine.explanations.integrated_gradients import integrated_gradients
from pairx_engine.explanations.local_matches import local_matches
from pairx_engine.explanations.pairx import Propagated, propagated
from pairx_engine.explanations.seam import Explained, Explanation, State, Subject, Trained, needs
from pairx_engine.explanations.superpixels import superpixel_methods
from pairx_engine.explanations.tummala import tummala
from pairx_engine.explanations.utkin import utkin
from pairx_engine.relevance.presets import preset_named

Family = Callable[[], Sequence[Explanation]]
"""Called each time, so that a preset registered later has its explanations, too."""
USUAL_COST = 60
"""Forward passes of a pair. Dearer explanations take minutes where others take seconds."""
_FAMILIES: list[Family] = [
    propagated,
    gradients,
    integrated_gradients,
    full_gradients,
    cams,
    diff_cam,
    tummala,
    cell_products,
    points_of_cells,
    explain_lfs,
    utkin,
    superpixel_methods,
    local_matches,
    controls,
]


def register(family: Family) -> Family:
    """Add a family; its members come after those that are already there.

    The function can also stand above a family as its decorator.
    """
    _FAMILIES.append(family)
    return family


def unregister(family: Family) -> None:
    """Take a family out again."""
    _FAMILIES.remove(family)


def explanations() -> dict[str, Explanation]:
    """All ways to explain a pair by name, in their order."""
    return {each.name: each for family in _FAMILIES for each in family()}


def usual(presets: Collection[str] | None = None) -> tuple[str, ...]:
    """What is measured where none is named: those that cost at most `USUAL_COST`, and need nothing else.

    One that learns takes minutes first, and refuses every pair where the catalogue taught it too little.
    `presets` are those that suit the network (`pairx_engine.relevance.suitable`); None takes all.
    """
    return tuple(
        name
        for name, each in explanations().items()
        if each.cost <= USUAL_COST
        and not needs(each)
        and not isinstance(each, Trained)
        and not (isinstance(each, Propagated) and presets is not None and each.preset not in presets)
    )


def explanation_named(name: str) -> Explanation:
    """The explanation of that name; raises `EngineError` that lists the known names.

    A preset within a name may carry parameters, as in ``pairx_cp:linear=0.1``.
    """
    known = explanations()
    own, parameters, _ = name.partition(":")
    found = known.get(own)
    if isinstance(found, Propagated) and parameters:
        preset = found.preset + name.removeprefix(own)
        preset_named(preset)
        return replace(found, preset=preset)
    if name not in known:
        raise EngineError(
            f"unknown method {name!r}; choose one of {', '.join(known)}{did_you_mean(name, known)}"
        )
    return known[name]


def explain(
    name: str, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
) -> Explained:
    """Explain two normalised chips (3, H, W) by the explanation of that name.

    Raises `EngineError` for an unknown name, for an explanation that must learn first but has no `state`, and
    where the network does not allow the explanation.
    """
    chosen = explanation_named(name)
    if isinstance(chosen, Trained) and state is None:
        raise EngineError(
            f"method {name!r} learns from a catalogue first: `pairx evaluate --faithfulness N --method {name}` does that, and "
            "`--warehouse URL` of `pairx explain` and `pairx compare` takes up what it learned there"
        )
    return chosen.explain(subject, chip_a, chip_b, state)
