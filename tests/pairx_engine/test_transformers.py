"""Rules for transformers against the slow way: every family, both rules, with and without gamma."""

from functools import cache

import pytest
import torch

from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.starts import cosine_shares
from tests.pairx_engine.comparison import CELLS, EXACT, beyond, errors_of, found_by, wanted_of
from tests.pairx_engine.slow_transformers import slow_transformer
from tests.pairx_engine.small_transformers import FAMILIES, as_maps, beside_attention, transformer

PLAIN = ":linear=0:attention=0:convolution=0"
EVERYWHERE = ":linear=0.1:attention=0.3:convolution=0.25"
PRESETS = [name + gammas for name in ("cp", "attnlrp") for gammas in (PLAIN, "", EVERYWHERE)]


@cache
def starts_of(family, dtype):
    network, chips, _ = transformer(family, dtype)
    embeddings = network(torch.stack(chips))
    drawn = torch.randn(len(embeddings[0]), generator=torch.Generator().manual_seed(3), dtype=torch.float32)
    return torch.stack([cosine_shares(*embeddings)[0], drawn.to(dtype) * embeddings[0]])


@cache
def slow_way(family, preset, dtype):
    network, (chip, _), layers = transformer(family, dtype)
    maps = as_maps(network, layers[0], chip)
    found = slow_transformer(
        network, preset, chip, layers[:1], starts_of(family, dtype), CELLS, maps, beside_attention(network)
    )
    for layer in layers[1:]:
        more = slow_transformer(
            network, preset, chip, [layer], starts_of(family, dtype), CELLS, as_maps(network, layer, chip),
            beside_attention(network),
        )  # fmt: skip
        found.features.update(more.features)
        found.channels.update(more.channels)
        found.cell_pixels.update(more.cell_pixels)
    return found


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_double_precision_equals_the_slow_way(family, preset):
    network, (chip, _), layers = transformer(family, torch.float64)
    explainer = LayerExplainer(network, layers, preset)
    assert explainer.path == "fast"
    wanted = wanted_of(slow_way(family, preset, torch.float64), preset)
    assert not beyond(EXACT, errors_of(found_by(explainer, chip, starts_of(family, torch.float64)), wanted))
