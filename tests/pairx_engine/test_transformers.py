"""Rules for transformers against the slow way: every family, both rules, with and without gamma."""

from dataclasses import replace
from functools import cache

import pytest
import timm
import torch
import zennit.rules
from torch import nn

from pairx_engine.device.tuning import CPU
from pairx_engine.errors import EngineError
from pairx_engine.models import load_model
from pairx_engine.photo.chips import chip_of, decode_photo
from pairx_engine.relevance.account import account, accounts
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.precision import FULL
from pairx_engine.relevance.presets import Gammas, preset_named
from pairx_engine.relevance.reading import Reading
from pairx_engine.relevance.rules.base import Run
from pairx_engine.relevance.rules.transformers import CP
from pairx_engine.relevance.starts import cosine_shares
from pairx_engine.relevance.suitable import preset_for, suitable_presets
from pairx_engine.relevance.trace import trace
from tests.pairx_engine.comparison import CELLS, EXACT, SINGLE, beyond, errors_of, found_by, itself, wanted_of
from tests.pairx_engine.slow_transformers import slow_transformer
from tests.pairx_engine.small_networks import random_chip, randomise, small_network
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


@pytest.mark.parametrize("preset", ["cp", "attnlrp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_single_precision_is_as_exact_as_the_slow_way(family, preset):
    network, (chip, _), layers = transformer(family, torch.float32)
    found = found_by(
        LayerExplainer(network, layers, preset), chip, starts_of(family, torch.float32), keep=True
    )
    slow, exact = (
        wanted_of(slow_way(family, preset, dtype), preset) for dtype in (torch.float32, torch.float64)
    )
    errors, slow_errors = errors_of(found, exact), errors_of({n: w.value for n, w in slow.items()}, exact)
    amplified = {name for name in errors if errors[name] <= 8 * slow_errors[name]}
    assert not beyond(SINGLE, errors_of(found, slow)).keys() - amplified


@pytest.mark.parametrize("gammas", [PLAIN, "", EVERYWHERE])
@pytest.mark.parametrize("family", FAMILIES)
def test_cp_accounts_for_the_whole_cosine(family, gammas):
    """Pixels, biases, position embeddings, class and register tokens together: Eq. R = A * G at every step."""
    network, (chip, other), layers = transformer(family, torch.float64)
    explainer = LayerExplainer(network, layers, "cp" + gammas)
    seen = explainer.see(chip, keep=True)
    starts = starts_of(family, torch.float64)
    pixels, elsewhere = account(explainer, seen, starts)
    total = pixels.flatten(1).sum(dim=1) + sum(elsewhere.values())
    assert torch.allclose(total, starts.sum(dim=1), rtol=1e-9, atol=1e-12)
    cosine = torch.cosine_similarity(*network(torch.stack([chip, other])), dim=0)
    assert float(total[0]) == pytest.approx(float(cosine), abs=1e-10)
    assert any(float(kept.abs().max()) > 1e-6 for kept in elsewhere.values()), "random biases keep something"


def test_attnlrp_conserves_nothing_and_says_so():
    network, (chip, _), layers = transformer("ViT (DINOv2)", torch.float64)
    explainer = LayerExplainer(network, layers, "attnlrp" + PLAIN)
    starts, seen = starts_of("ViT (DINOv2)", torch.float64), explainer.see(chip, keep=True)
    assert not accounts(explainer)
    with pytest.raises(EngineError, match="cannot account for relevance"):
        account(explainer, seen, starts)
    ledger = {}
    pixels = seen.kept.pulls.through(starts, ledger)
    total = pixels.flatten(1).sum(dim=1) + sum(ledger.values())
    assert not torch.allclose(total, starts.sum(dim=1), rtol=1e-6), "under cp it agrees to 1e-9"


def test_each_kind_of_constant_has_a_name():
    network, (chip, _), layers = transformer("ViT with registers", torch.float64)
    explainer = LayerExplainer(network, layers, "cp")
    _, elsewhere = account(
        explainer, explainer.see(chip, keep=True), starts_of("ViT with registers", torch.float64)
    )
    assert {name for name, kept in elsewhere.items() if kept.abs().max() > 0} == {
        "biases", "biases of norms", "position embeddings", "class and register tokens",
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["cp", "attnlrp"])
@pytest.mark.parametrize("family", ["ViT with registers", "Swin", "SwinV2", "EVA-02", "EdgeNeXt"])
def test_photos_together_equal_photos_alone(family, preset):
    network, chips, layers = transformer(family, torch.float64)
    together = replace(CPU, photos=2, starts=3, maps=2)
    explainer, alone = (
        LayerExplainer(network, layers, preset, tuning=together),
        LayerExplainer(network, layers, preset),
    )
    starts = [starts_of(family, torch.float64), starts_of(family, torch.float64).flip(0)]
    seen, singles = explainer.see_all(chips, keep=True), [alone.see(chip) for chip in chips]
    for layer in layers:
        cells = [[(0, 0), (1, 2)], [(1, 1), (0, 2)]]
        maps = explainer.all_pixel_maps(seen, layer, cells)
        for i, one in enumerate(singles):
            wanted = alone.channel_relevance(one, starts[i])[layer]
            assert torch.allclose(explainer.channel_relevances(seen, starts)[i][layer], wanted, atol=1e-12)
            assert torch.allclose(maps[i], alone.pixel_maps(one, layer, cells[i]), atol=1e-12)


@pytest.mark.parametrize("preset", ["cp", "attnlrp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_relevance_is_linear_in_its_start(family, preset):
    network, (chip, _), layers = transformer(family, torch.float64)
    explainer = LayerExplainer(network, layers, preset)
    seen, (a, b) = explainer.see(chip), starts_of(family, torch.float64)
    parts, both = explainer.channel_relevance(seen, torch.stack([a, b])), 2 * a - 3 * b
    for layer, found in explainer.channel_relevance(seen, both[None]).items():
        assert torch.allclose(found[0], 2 * parts[layer][0] - 3 * parts[layer][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("preset", ["published", "paper", "conserving"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rules_without_attention_refuse_it_and_name_those_that_have_it(family, preset):
    network, _, layers = transformer(family, torch.float32)
    with pytest.raises(EngineError, match="attention.* choose preset cp or attnlrp"):
        LayerExplainer(network, layers, preset)


def test_the_default_preset_follows_from_the_network():
    assert preset_for(transformer("Swin", torch.float32)[0], "auto") == "cp"
    assert preset_for(small_network("timm InvertedResidual with gate", 0), "auto") == "published"
    assert preset_for(small_network("timm InvertedResidual with gate", 0), "paper") == "paper"


def test_presets_to_try_follow_from_the_network():
    assert suitable_presets(transformer("Swin", torch.float32)[0]) == ["cp", "attnlrp"]
    convolutions = small_network("timm InvertedResidual with gate", 0)
    assert suitable_presets(convolutions) == ["published", "paper", "conserving", "cp"]


@pytest.mark.parametrize(
    "block",
    [
        "conv + batch norm + ReLU",
        "timm InvertedResidual with gate",
        "timm EdgeResidual, same padding",
        "timm ConvNeXtBlock",
        "timm Bottleneck",
        "functional",
        "max pooling",
    ],
)
def test_cp_explains_and_accounts_for_convolutions_too(block):
    network = small_network(block, 0, pool="mean").double()
    chip, other = random_chip(1, (12, 14)), random_chip(2, (12, 14))
    explainer = LayerExplainer(network, ["first"], "cp")
    seen = explainer.see(chip, keep=True)
    start = cosine_shares(seen.embedding, explainer.see(other).embedding)[0][None]
    slow = slow_transformer(network, "cp", chip, ["first"], start, CELLS, lambda output: output, [])
    assert not beyond(1e-9, errors_of(found_by(explainer, chip, start), wanted_of(slow, "cp")))
    pixels, elsewhere = account(explainer, seen, start)
    assert float(pixels.sum() + sum(elsewhere.values())) == pytest.approx(float(start.sum()), abs=1e-10)


def test_attention_that_cannot_be_read_is_refused_with_its_reason():
    network = timm.create_model("mobilevit_xxs", num_classes=0)
    for preset in ("auto", "published", "cp"):
        with pytest.raises(EngineError, match="has attention .*cannot read it .*MobileVitBlock"):
            LayerExplainer(network, ["stages.2"], preset_for(network, preset))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cp:linear", "does not understand 'linear'.*cp:linear=NUMBER"),
        ("cp:depth=1", "does not understand 'depth=1'"),
        ("cp:linear=-1", "gamma linear must be a number of 0 or more"),
        ("cp:linear=inf", "gamma linear must be a number"),
        ("published:linear=1", "preset published has no parameters; those of cp, attnlrp are gammas"),
    ],
)
def test_parameters_of_presets_are_checked(name, words):
    with pytest.raises(EngineError, match=words):
        preset_named(name)


def test_parameters_are_part_of_the_preset():
    assert preset_named("cp:linear=0.5").parameters == {"linear": 0.5, "attention": 0.0, "convolution": 0.25}
    assert preset_named("cp:linear=0.5").name == "cp:linear=0.5"
    assert preset_named("conserving").parameters == {}


@pytest.mark.parametrize("gamma", [0.05, 0.25, 1.0])
@pytest.mark.parametrize("make", [lambda: nn.Linear(7, 5), lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1)])
def test_gamma_is_that_of_zennit(make, gamma):
    """Relevance in is x * G, relevance out z * G."""
    torch.manual_seed(0)
    layer = make().double()
    shape = (2, 4, 7) if isinstance(layer, nn.Linear) else (2, 3, 8, 9)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    network = nn.Sequential(layer).eval()
    z = network(x).detach()
    out = torch.randn_like(z)
    handle = zennit.rules.Gamma(gamma, stabilizer=1e-15).register(layer)
    (wanted,) = torch.autograd.grad(network(x), x, out)
    handle.remove()
    layer.requires_grad_(False)
    kind = "linear" if isinstance(layer, nn.Linear) else "convolution"
    reading = Reading(trace(network, ()), FULL, gammas=Gammas(**{kind: gamma}))
    (step,) = reading.trace.steps
    run = Run(step, {0: x.detach()}, (0,))
    output, recording = CP.rule_of(reading.at(step)).record(run, [x.detach()])
    assert torch.equal(output, z)
    (found,) = recording.pull((out / z)[None])
    assert torch.allclose(found[0] * x.detach(), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("family", "layer"),
    [("ViT with registers", "blocks.1"), ("ViT, any size", "blocks.1"), ("DINOv3", "blocks.0")],
)
def test_keys_describe_cells_and_leave_relevance_as_it_is(family, layer):
    network, (chip, _), _ = transformer(family, torch.float64)
    starts, cells = starts_of(family, torch.float64), [(1, 2), (0, 0)]
    by_keys, plain = (LayerExplainer(network, [name], "cp") for name in (f"{layer}:keys", layer))
    seen, alike = by_keys.see(chip, keep=True), plain.see(chip)
    assert seen.features[f"{layer}:keys"].shape == alike.features[layer].shape
    assert torch.equal(
        by_keys.channel_relevance(seen, starts)[f"{layer}:keys"],
        plain.channel_relevance(alike, starts)[layer],
    )
    assert torch.equal(by_keys.pixel_maps(chip, f"{layer}:keys", cells), plain.pixel_maps(chip, layer, cells))


def test_keys_are_the_middle_third_of_what_makes_queries_keys_and_values():
    network, (chip, _), _ = transformer("ViT with registers", torch.float64)
    made = []
    handle = network.blocks[1].attn.qkv.register_forward_hook(lambda m, i, o: made.append(o[0]))
    found = LayerExplainer(network, ["blocks.1:keys"], "cp").see(chip).features["blocks.1:keys"]
    network(chip[None])
    handle.remove()
    (width, height, columns) = found.shape
    assert (height, columns) == (4, 6)
    keys = made[0][4:, width : 2 * width]
    assert torch.allclose(found, keys.T.unflatten(1, (height, columns)))


@pytest.mark.parametrize(
    ("family", "layer", "words"),
    [
        ("Swin", "layers.1.blocks.0:keys", "no keys to match by"),
        ("ViT (DINOv2)", "blocks.1.mlp:keys", "no keys to match by"),
        ("ViT (DINOv2)", "blocks.1:values", "asks for descriptors 'values'; there are keys"),
        ("ViT (DINOv2)", "blocks.9:keys", "no layer 'blocks.9'"),
    ],
)
def test_keys_that_there_are_not_are_refused(family, layer, words):
    with pytest.raises(EngineError, match=words):
        LayerExplainer(transformer(family, torch.float32)[0], [layer], "cp")


@pytest.mark.parametrize(("precision", "limit"), [("bfloat16", 3e-2), ("float16", 5e-3)])
@pytest.mark.parametrize("family", ["ViT (DINOv2)", "Swin", "EdgeNeXt"])
def test_short_formats_say_nearly_the_same(family, precision, limit):
    network, (chip, _), layers = transformer(family, torch.float32)
    starts = starts_of(family, torch.float32)
    wanted = found_by(LayerExplainer(network, layers, "cp"), chip, starts)
    found = found_by(LayerExplainer(network, layers, "cp", precision), chip, starts)
    assert not beyond(limit, errors_of(found, {name: itself(value) for name, value in wanted.items()}))
    assert any(not torch.equal(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize(
    ("model", "photos"),
    [("vit_small_dinov2", "dogs"), ("mini_swin_cows", "cows"), ("edgeface_xxs", "faces")],
)
def test_cp_accounts_for_the_cosine_of_real_photos(model, photos, shared):
    """The sources' conservation on real weights: the cosine to four digits."""
    loaded = load_model(shared / "models" / model)
    files = sorted((shared / "data" / photos / "images").rglob("*.[jp]*g"))[:2]
    chips = [chip_of(decode_photo(file.read_bytes()), loaded.chip) for file in files]
    explainer = LayerExplainer(loaded.network, [loaded.layer], "cp")
    seen = [explainer.see(chip, keep=True) for chip in loaded.normalise(chips)]
    for one, start in zip(seen, cosine_shares(*(one.embedding for one in seen)), strict=True):
        pixels, elsewhere = account(explainer, one, start[None])
        total = float(pixels.sum(dtype=torch.float64)) + sum(float(kept[0]) for kept in elsewhere.values())
        assert total == pytest.approx(float(start.sum(dtype=torch.float64)), abs=1e-4)
        assert abs(float(pixels.sum())) > 1e-3


class Normed(nn.Module):
    """A convolution, a norm over groups of its channels by module and by function, and a mean."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.conv(x))
        x = nn.functional.group_norm(x.relu(), 2, self.norm.weight, self.norm.bias)
        return self.head(x.mean((2, 3)))


def test_norms_of_groups_hold_their_spread():
    network = randomise(Normed(), torch.randn(2, 3, 9, 11)).double()
    chip, other = random_chip(1, (9, 11)), random_chip(2, (9, 11))
    explainer = LayerExplainer(network, ["conv"], "cp")
    seen = explainer.see(chip, keep=True)
    start = cosine_shares(seen.embedding, explainer.see(other).embedding)[0][None]
    slow = slow_transformer(network, "cp", chip, ["conv"], start, CELLS, lambda output: output, [])
    assert not beyond(EXACT, errors_of(found_by(explainer, chip, start), wanted_of(slow, "cp")))
    pixels, elsewhere = account(explainer, seen, start)
    assert float(pixels.sum() + sum(elsewhere.values())) == pytest.approx(float(start.sum()), abs=1e-12)
