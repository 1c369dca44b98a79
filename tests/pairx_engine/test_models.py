"""Models: every layout of a checkpoint gives the same embeddings.

What does not fit is refused with a message.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from pairx_engine import model_files
from pairx_engine.errors import EngineError, ModelError
from pairx_engine.model_files import EMBEDDED_FOLDER, PINNED_REVISIONS
from pairx_engine.models import EMBEDDED, build_miewid, load_model
from pairx_engine.models.timm_model import TimmDescription, build_timm, layer_to_explain
from pairx_engine.pair.explain import explain_pair
from pairx_engine.photo.chips import chip_of
from pairx_engine.relevance.explainer import LayerExplainer
from schemas.settings import Settings
from tasks.job import prepare_job
from tasks.store.warehouse import Warehouse

MINIATURE = json.loads((EMBEDDED_FOLDER / "config.json").read_text(encoding="utf-8"))
WEIGHTS = "model.safetensors"


def shaken(network, seed=0):
    """Random weights, batch-norm statistics and pooling power, so that every tensor matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.rand(value.shape, generator=generator)
        if name.endswith(("running_var", "global_pool.p")) or (value.ndim == 1 and name.endswith("weight")):
            value.copy_(0.5 + noise)
        else:
            value.copy_((noise - 0.5) * (2 / max(1, value[0].numel()) ** 0.5 if value.ndim else 0.1))
    return network.eval().requires_grad_(False)


def save(folder, state, config=None, name=WEIGHTS):
    """A model folder: weights in the format that the name asks for, and a config.json unless it is None."""
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in state.items()}, folder / name)
    else:
        torch.save(state, folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def embedding(model, seed=0):
    chip = np.random.default_rng(seed).integers(0, 256, (*model.chip.size, 3), dtype=np.uint8)
    with torch.no_grad():
        return model.network(model.normalise([chip]))[0]


def training_layout(state):
    """How training writes a MiewID: the pooling beside the backbone, and heads that nobody needs to embed."""
    moved = {"pooling.p" if k == "backbone.global_pool.p" else k: v for k, v in state.items()}
    return moved | {
        "final.kernel": torch.zeros(256, 10),
        "final.wmetric_classify.weight": torch.zeros(10, 256),
        "final.warcface_margin.margins": torch.zeros(10),
        "backbone.classifier.weight": torch.zeros(1000, 256),
        "backbone.classifier.bias": torch.zeros(1000),
    }


# ---------------------------------------------------------------------------------------------- MiewID


@pytest.fixture(scope="module")
def miniature():
    return shaken(build_miewid(MINIATURE))


LAYOUTS = {
    "published": (
        WEIGHTS,
        lambda s: s | {"final.weight": torch.zeros(10, 256), "final.bias": torch.zeros(10)},
    ),
    "without heads": (WEIGHTS, lambda s: s),
    "training": ("pytorch_model.bin", training_layout),
    "training, wrapped": (
        "pytorch_model.bin",
        lambda s: {"model_state_dict": training_layout(s), "epoch": 3, "optimizer": {"lr": 0.1}},
    ),
    "training, as safetensors": (WEIGHTS, training_layout),
    "half precision": (
        WEIGHTS,
        lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_miewid_gives_the_same_embedding(layout, miniature, tmp_path):
    name, arrange = LAYOUTS[layout]
    model = load_model(save(tmp_path / "m", arrange(dict(miniature.state_dict())), MINIATURE, name))
    wanted = miniature(model.normalise([np.zeros((160, 160, 3), np.uint8) + 99]))[0]
    found = model.network(model.normalise([np.zeros((160, 160, 3), np.uint8) + 99]))[0]
    atol = 0.02 * float(wanted.abs().max()) if layout == "half precision" else 0
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)
    assert model.layer == "backbone.blocks.3"
    assert model.chip.size == (160, 160)
    assert not any(p.requires_grad for p in model.network.parameters())
    assert not model.network.training


def test_a_weights_file_is_named_as_well_as_its_folder(miniature, tmp_path):
    folder = save(tmp_path, dict(miniature.state_dict()), MINIATURE, "epoch_7.pt")
    torch.testing.assert_close(
        embedding(load_model(folder / "epoch_7.pt")), embedding(load_model_of(miniature, tmp_path))
    )


def load_model_of(network, folder):
    return load_model(save(folder / "again", dict(network.state_dict()), MINIATURE))


def test_the_pooling_is_the_generalised_mean(miniature):
    features = torch.rand(2, 5, 3, 4) - 0.3
    p = float(miniature.backbone.global_pool.p)
    wanted = features.clamp(min=1e-6).double().pow(p).mean(dim=(2, 3)).pow(1 / p)
    torch.testing.assert_close(
        miniature.backbone.global_pool(features).double(), wanted, rtol=1e-4, atol=1e-6
    )


def test_the_neck_standardises_the_pooled_features_with_what_training_saw(miniature):
    chips = torch.rand(2, 3, 64, 96)
    pooled, neck = miniature.backbone(chips), miniature.bn
    wanted = (pooled - neck.running_mean) / (neck.running_var + neck.eps).sqrt() * neck.weight + neck.bias
    torch.testing.assert_close(miniature(chips), wanted, rtol=1e-4, atol=1e-5)


def test_full_size_miewid_loads_strictly_from_the_published_layout_alone(tmp_path):
    network = shaken(build_miewid())
    heads = {"final.weight": torch.zeros(10, 2152), "final.bias": torch.zeros(10)}
    published = {
        "architectures": ["MiewIdNet"],
        "model_type": "miewid",
        "auto_map": {"AutoModel": "modeling.M"},
    }
    model = load_model(save(tmp_path / "m", dict(network.state_dict()) | heads, published))
    (tmp_path / "m" / WEIGHTS).unlink()  # 200 MB that nobody needs any more
    assert model.chip.size == (440, 440)
    assert model.layer == "backbone.blocks.3"
    found = embedding(model)
    assert found.shape == (2152,)
    assert torch.isfinite(found).all()
    chip = np.random.default_rng(0).integers(0, 256, (440, 440, 3), dtype=np.uint8)
    torch.testing.assert_close(found, network(model.normalise([chip]))[0])
    assert sum(p.numel() for p in model.network.parameters()) == pytest.approx(51.1e6, rel=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("backbone.conv_stem.weight"), ("missing (1)", "backbone.conv_stem.weight")),
        (lambda s: s.update({"neck.weight": torch.zeros(1)}), ("unexpected (1)", "neck.weight")),
        (
            lambda s: s.update({"bn.bias": torch.zeros(7)}),
            ("wrong shape (1)", "bn.bias (7,) for (256,)"),
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_their_names(change, words, miniature, tmp_path):
    state = dict(miniature.state_dict())
    change(state)
    with pytest.raises(ModelError) as caught:
        load_model(save(tmp_path, state, MINIATURE))
    for word in (*words, "config.json"):
        assert word in str(caught.value)


# ---------------------------------------------------------------------------------------------- timm


TIMM = {
    "resnet18": "backbone.layer3",
    "mobilenetv3_small_050": "backbone.blocks.3",
    "efficientnet_b0": "backbone.blocks.4",
    "convnext_atto": "backbone.stages.2",
}


@pytest.fixture(scope="module", params=TIMM)
def classifier(request):
    torch.manual_seed(0)
    return request.param, timm.create_model(request.param, pretrained=False, num_classes=7).eval()


@pytest.mark.parametrize("layout", ["ours", "hub"])
def test_a_timm_model_embeds_by_its_pooled_features(classifier, layout, tmp_path):
    name, network = classifier
    normalisation = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}
    config = {
        "ours": {"architecture": "timm", "timm_name": name, "input": {"size": [96, 128], **normalisation}},
        "hub": {
            "architecture": name,
            "num_classes": 7,
            "num_features": 1,
            "pretrained_cfg": {"tag": "in1k", "input_size": [3, 96, 128], "num_classes": 7, **normalisation},
        },
    }[layout]
    model = load_model(save(tmp_path, network.state_dict(), config))
    assert model.chip.size == (96, 128)
    assert (model.chip.mean, model.chip.std) == ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
    chip = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    scaled = (
        torch.from_numpy(chip).permute(2, 0, 1) / 255 - torch.tensor([[[0.5]], [[0.4]], [[0.3]]])
    ) / torch.tensor([[[0.5]], [[0.6]], [[0.7]]])
    with torch.no_grad():
        wanted = network.forward_head(network.forward_features(scaled[None]), pre_logits=True).flatten(1)
        found = model.network(model.normalise([chip]))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert model.layer == TIMM[name]


def test_the_layer_to_explain_is_a_map_at_stride_16(classifier):
    name, _ = classifier
    network = build_timm(TimmDescription(name, {}, None, None, None))
    layer = layer_to_explain(network, (128, 160))
    assert layer == TIMM[name]
    with torch.no_grad():
        seen = LayerExplainer(network, [layer]).see(torch.zeros(3, 128, 160))
    assert seen.features[layer].shape[1:] == (8, 10)


def test_looking_for_the_layer_leaves_the_network_as_it_was():
    network = build_timm(TimmDescription("resnet18", {}, None, None, None))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    layer_to_explain(network, (96, 96))
    assert not network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


SWIN = {
    "img_size": 64,
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 12,
    "depths": [1, 1],
    "num_heads": [2, 2],
}


def test_a_class_of_timm_makes_a_model_of_sizes_that_have_no_name(tmp_path):
    network = timm.models.swin_transformer.SwinTransformer(**SWIN, num_classes=0)
    config = {"architecture": "timm", "timm_class": "timm.models.swin_transformer.SwinTransformer"}
    config |= {"timm_kwargs": SWIN, "input": {"size": [64, 64]}, "explain_layer": "layers.1"}
    model = load_model(save(tmp_path, network.state_dict(), config))
    chips = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.network(chips), network.eval()(chips))
    assert model.layer == "backbone.layers.1"


@pytest.mark.parametrize(
    "name", ["timm.models.swin_transformer.nn", "torch.nn.Linear", "os.system", "timm.models.x.Y"]
)
def test_a_class_that_is_no_network_of_timm_is_refused_unused(name, tmp_path):
    config = {"architecture": "timm", "timm_class": name}
    with pytest.raises(ModelError, match="timm_class"):
        load_model(save(tmp_path, {"a": torch.zeros(1)}, config))


def test_the_classifiers_output_is_the_embedding_where_the_config_says_so(tmp_path):
    network = timm.create_model("resnet18", num_classes=7).eval()
    config = {"architecture": "timm", "timm_name": "resnet18", "timm_kwargs": {"num_classes": 7}}
    chips = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        outputs, pooled = (
            network(chips),
            network.forward_head(network.forward_features(chips), pre_logits=True),
        )
    for embedding_dim, wanted in ((7, outputs), (512, pooled)):
        folder = tmp_path / str(embedding_dim)
        folder.mkdir()
        model = load_model(save(folder, network.state_dict(), config | {"embedding_dim": embedding_dim}))
        torch.testing.assert_close(model.network(chips), wanted)
    assert len({load_model(tmp_path / d).identity()["architecture"] for d in ("7", "512")}) == 2


def test_position_embeddings_of_another_grid_are_resampled_as_timm_does(tmp_path):
    kwargs = {"patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 0}
    large = timm.models.vision_transformer.VisionTransformer(img_size=64, **kwargs)
    wanted = timm.models.vision_transformer.VisionTransformer(img_size=48, **kwargs).eval()
    resampled = timm.models.vision_transformer.checkpoint_filter_fn(large.state_dict(), wanted)
    wanted.load_state_dict(resampled)
    config = {"architecture": "timm", "timm_class": "timm.models.vision_transformer.VisionTransformer"}
    config |= {"timm_kwargs": kwargs | {"img_size": 48}, "input": {"size": [48, 48]}}
    model = load_model(save(tmp_path, large.state_dict(), config))
    chips = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(model.network(chips), wanted(chips))


def test_weights_saved_from_the_wrapped_network_load_too(classifier, tmp_path):
    name, network = classifier
    state = {f"backbone.{k}": v for k, v in network.state_dict().items()}
    model = load_model(save(tmp_path, state, {"architecture": "timm", "timm_name": name}))
    assert embedding(model).ndim == 1


def test_a_timm_state_that_lacks_and_exceeds_is_refused_with_both_lists(tmp_path):
    state = dict(timm.create_model("resnet18", pretrained=False).state_dict())
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")
    with pytest.raises(
        ModelError, match=r"missing \(1\): backbone\.layer1\.0\.conv1\.weight\n.*unexpected \(1\)"
    ):
        load_model(save(tmp_path, state, {"architecture": "timm", "timm_name": "resnet18"}))


OLD_SWIN = {
    "embed_dim": 16,
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 3,
    "img_size": 96,
}


def test_the_old_layout_of_swin_as_megadescriptor_has_it_loads_strictly(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(
        "swin_tiny_patch4_window7_224", pretrained=False, num_classes=0, **OLD_SWIN
    ).eval()
    old = {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(9, 9),
        "head.weight": torch.zeros(5, 128),
    }
    for key, value in network.state_dict().items():
        parts = key.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        old[".".join(parts)] = value
    assert "layers.0.downsample.norm.weight" in old
    config = {
        "architecture": "timm",
        "timm_name": "swin_tiny_patch4_window7_224",
        "timm_kwargs": OLD_SWIN,
        "input": {"size": [96, 96]},
    }
    model = load_model(save(tmp_path, {"model": old}, config, "pytorch_model.bin"))
    chip = torch.zeros(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(model.network(chip), network(chip))
    assert model.layer == "backbone.layers.2"


# ---------------------------------------------------------------------------------------------- transformers


VIT = {"img_size": 96, "depth": 4}
TRANSFORMERS = {
    "swin": ("swin_tiny_patch4_window7_224", OLD_SWIN, "backbone.layers.2", (6, 6)),
    "vit": ("vit_tiny_patch16_224", VIT, "backbone.blocks.2", (6, 6)),
}


def transformer(kind, folder):
    name, kwargs, layer, grid = TRANSFORMERS[kind]
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0, **kwargs)
    config = {"architecture": "timm", "timm_name": name, "timm_kwargs": kwargs, "input": {"size": [96, 96]}}
    return save(folder, network.state_dict(), config), layer, grid


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers_are_explained_at_a_layer_of_their_own_by_the_preset_for_them(kind, tmp_path):
    folder, layer, grid = transformer(kind, tmp_path)
    model = load_model(folder)
    assert torch.isfinite(embedding(model)).all()
    assert model.layer == layer
    chips = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    found = explain_pair(model, *chips, n_pixel_maps=2)
    assert found.preset == "cp"
    assert found.photos[0].relevance["signed_sum"].shape == grid
    assert sum(found.photos[0].account.values()) == pytest.approx(float(found.cosine), abs=1e-4)
    with pytest.raises(EngineError, match="choose preset cp or attnlrp"):
        explain_pair(model, *chips, preset="published")


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_run_with_a_transformer_knows_its_preset_before_any_work(kind, tmp_path):
    folder, layer, _ = transformer(kind, tmp_path / "model")
    job = prepare_job(Warehouse(str(tmp_path / "warehouse")), Settings(model=str(folder)))
    assert (job.settings.preset, job.layers) == ("cp", (layer,))
    with pytest.raises(ModelError, match="choose preset cp or attnlrp"):
        prepare_job(Warehouse(str(tmp_path / "warehouse")), Settings(model=str(folder), preset="conserving"))


def test_a_block_whose_cells_count_for_nothing_is_refused_before_any_work(tmp_path):
    """Behind the last block the class token alone is read."""
    folder, _, _ = transformer("vit", tmp_path / "model")
    settings = Settings(model=str(folder), layers=("backbone.blocks.3",))
    with pytest.raises(ModelError, match="backbone.blocks.3 count for nothing; choose an earlier block"):
        prepare_job(Warehouse(str(tmp_path / "warehouse")), settings)


def test_parameters_of_a_preset_are_part_of_the_fingerprint_of_scores(tmp_path):
    folder, _, _ = transformer("vit", tmp_path / "model")
    prints = [
        asdict(prepare_job(Warehouse(str(tmp_path / "w")), Settings(model=str(folder), preset=preset)).prints)
        for preset in ("auto", "cp", "cp:linear=0.05", "cp:linear=0.1", "attnlrp")
    ]
    assert prints[0] == prints[1]
    assert len({one["scores"] for one in prints[1:]}) == 4
    assert len({one["embeddings"] for one in prints}) == 1


# --------------------------------------------------------------------------------------- untrusted files


class Trap:
    """Unpickling it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle", "nested"])
def test_a_pickle_with_code_is_refused_and_nothing_runs(how, miniature, tmp_path):
    mark = tmp_path / "executed"
    loot = {"bn.running_mean": Trap(mark)} if how == "nested" else Trap(mark)
    path = tmp_path / "pytorch_model.bin"
    if how == "pickle":
        path.write_bytes(pickle.dumps(loot))
    else:
        torch.save(loot, path)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert not mark.exists()
    assert "safetensors" in str(caught.value)
    assert "weights_only" not in str(caught.value), "no advice to switch the protection off"
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists(), "the trap works where nothing guards"


@pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin"])
def test_damaged_weights_are_refused_in_words(name, miniature, tmp_path):
    save(tmp_path, dict(miniature.state_dict()), MINIATURE, name)
    good = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    for data in (
        b"",
        b"<html>",
        good[: len(good) // 2],
        good[:100],
        rng.bytes(5000),
        b"\xff" * 64 + good[64:],
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match=name):
            load_model(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_an_archive_of_something_else_is_no_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="state dict"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "no JSON"),
        ("[1]", "one JSON object"),
        ({"architecture": "timm"}, "timm_name"),
        ({"architecture": "timm", "timm_name": "resnet19"}, "resnet18"),
        ({"architecture": "timm", "timm_name": "hf-hub:someone/something"}, "timm has no architecture"),
        ({"architecture": "local-dir:/etc"}, "timm has no architecture"),
        ({"architecture": "timm", "timm_name": "resnet18", "timm_kwargs": {"wings": 2}}, "wings"),
        ({"architecture": "timm", "timm_name": "resnet18", "timm_kwargs": [1]}, "timm_kwargs"),
        ({"architecture": "timm", "timm_name": "resnet18", "input": 224}, "input"),
        ({"architecture": "timm", "timm_name": "resnet18", "input": {"size": 224}}, "size"),
        ({"architecture": "timm", "timm_name": "resnet18", "input": {"size": [4, 4]}}, "16 to 4096 pixels"),
        (
            {"architecture": "timm", "timm_name": "resnet18", "input": {"size": [10**6, 10**6]}},
            "16 to 4096 pixels",
        ),
        ('{"architecture": "timm", "timm_name": "resnet18", "input": {"size": [1e999, 1e999]}}', "size"),
        ({"architecture": "timm", "timm_name": "resnet18", "input": {"size": {"height": 9}}}, "size"),
        ('{"architecture": "timm", "timm_name": "resnet18", "input": {"mean": [NaN, 0, 0]}}', "mean"),
        ('{"a": ' * 100_000, "nested absurdly deep"),
        ({"architecture": "timm", "timm_name": "resnet18", "input": {"std": [1, 0, 1]}}, "std"),
        ({"architecture": "resnet18", "pretrained_cfg": {"input_size": [3]}}, "input_size"),
        ({"hidden_size": 3}, "architecture"),
        (None, "architecture"),
    ],
)
def test_a_config_that_cannot_be_used_names_its_key(config, words, tmp_path):
    save(tmp_path, timm.create_model("resnet18", pretrained=False).state_dict())
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_name": "hf-hub:someone/something"}, "model_name"),
        ({"backbone": {"stem_size": 16}}, "arch_def"),
        ({"backbone": {"arch_def": 3, "stem_size": 16, "num_features": 8}}, "arch_def"),
        ({"backbone": {"arch_def": [["zz_r1"]], "stem_size": 16, "num_features": 8}}, "arch_def"),
        ({"backbone": {"arch_def": [], "stem_size": 10**12, "num_features": 8}}, "stem_size"),
        ({**MINIATURE, "pool": {"eps": "small"}}, "pool.eps"),
        ({**MINIATURE, "input": {"size": [160]}}, "input"),
        ({**MINIATURE, "input": {"size": [10**6, 10**6]}}, "input"),
        ({**MINIATURE, "input": "160 px"}, "input"),
    ],
)
def test_a_miewid_config_that_cannot_be_used_names_its_key(config, words, miniature, tmp_path):
    save(tmp_path, dict(miniature.state_dict()), config)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path)


# --------------------------------------------------------------------------------------- names of models


@pytest.mark.parametrize("source", ["nowhere", "./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere/model"])
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_refused(source):
    with pytest.raises(ModelError, match="folder"):
        load_model(source)


@pytest.mark.parametrize(
    "source", ["models/cow", "./cow", "models\\cow", "~/nowhere-cow", "a/b/c", "/nowhere/cow"]
)
def test_a_mistyped_folder_is_not_asked_for_at_the_hub(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "cows").mkdir(parents=True)
    hub = Hub(monkeypatch, OSError("asked"))
    with pytest.raises(ModelError, match="no folder at /"):
        load_model(source)
    assert hub.calls == []


def test_a_folder_without_weights_says_what_it_wants(tmp_path):
    with pytest.raises(ModelError, match=r"model\.safetensors.*no config\.json either"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin$"):
        load_model(tmp_path)


def test_a_folder_without_a_config_says_so(tmp_path):
    weights = timm.create_model("resnet18").state_dict()
    with pytest.raises(ModelError, match=r"there is no config\.json"):
        load_model(save(tmp_path, weights, None))
    with pytest.raises(ModelError, match=r"config\.json has no 'architecture'"):
        load_model(save(tmp_path, weights, {"input": {}}))


def test_weights_of_another_type_are_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"model\.onnx: weights must be"):
        load_model(tmp_path / "model.onnx")


ANSWERS = model_files._hub_answers


class Hub:
    """Stands in for the hub's client: remembers what it was asked for, and gives a folder or fails."""

    def __init__(self, monkeypatch, answer):
        self.calls = []
        self.answer = answer
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self)
        monkeypatch.setattr(model_files, "_hub_answers", lambda: True)

    def __call__(self, repo_id, **options):
        self.calls.append((repo_id, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_a_hub_id_is_fetched_at_its_pinned_revision_without_code(miniature, tmp_path, monkeypatch):
    hub = Hub(monkeypatch, save(tmp_path, dict(miniature.state_dict()), MINIATURE))
    model = load_model("conservationxlabs/miewid-msv3")
    torch.testing.assert_close(embedding(model), embedding(load_model(tmp_path)))
    ((repo, options),) = hub.calls
    assert repo == "conservationxlabs/miewid-msv3"
    assert options["revision"] == PINNED_REVISIONS[repo] == "4f1d7f2b521149e5fe34bb85f377248ce9971a7d"
    assert set(options["allow_patterns"]) == {"config.json", WEIGHTS}


def test_a_revision_that_is_given_goes_before_the_pinned_one(miniature, tmp_path, monkeypatch):
    hub = Hub(monkeypatch, save(tmp_path, dict(miniature.state_dict()), MINIATURE))
    load_model("conservationxlabs/miewid-msv3", revision="abc")
    load_model("someone/else")
    assert [options["revision"] for _, options in hub.calls] == ["abc", None]


def test_a_hub_model_with_only_a_torch_archive_is_fetched_too(miniature, tmp_path, monkeypatch):
    hub = Hub(monkeypatch, save(tmp_path, dict(miniature.state_dict()), MINIATURE, "pytorch_model.bin"))
    load_model("someone/else")
    assert [set(o["allow_patterns"]) - {"config.json"} for _, o in hub.calls] == [
        {WEIGHTS},
        {"pytorch_model.bin"},
    ]


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("offline"), OSError("no route"), ValueError("odd")]
)
def test_a_hub_id_that_cannot_be_fetched_names_the_cure(error, monkeypatch):
    Hub(monkeypatch, error)
    with pytest.raises(ModelError) as caught:
        load_model("conservationxlabs/miewid-msv3")
    for word in ("conservationxlabs/miewid-msv3", "--model FOLDER", "config.json", type(error).__name__):
        assert word in str(caught.value)


def test_without_network_a_hub_id_fails_at_once(monkeypatch):
    hub = Hub(monkeypatch, LocalEntryNotFoundError("not kept"))
    monkeypatch.setattr(model_files, "_hub_answers", ANSWERS)
    monkeypatch.setattr(model_files, "getproxies", dict)
    tried = []

    def no_route(address, timeout):
        tried.append(address)
        raise OSError("no route")

    monkeypatch.setattr(model_files.socket, "create_connection", no_route)
    with pytest.raises(ModelError, match="the hub does not answer.*without network"):
        load_model("someone/else")
    assert tried == [("huggingface.co", 443)]
    assert [options["local_files_only"] for _, options in hub.calls] == [True]
    # A proxy makes the connection, so whether there is one is seen by asking.
    monkeypatch.setattr(model_files, "getproxies", lambda: {"https": "http://proxy:3128"})
    with pytest.raises(ModelError):
        load_model("someone/else")
    assert len(tried) == 1
    assert not hub.calls[-1][1]["local_files_only"]


def test_a_hub_model_without_weights_is_refused(tmp_path, monkeypatch):
    Hub(monkeypatch, tmp_path)
    with pytest.raises(ModelError, match="offers none of"):
        load_model("someone/else")


# ---------------------------------------------------------------------------------------------- identity


def test_the_resize_back_end_is_part_of_the_identity_and_of_the_chip():
    default, other = load_model(), load_model(resize="opencv")
    assert default.chip.resize == "pil"
    assert other.chip.resize == "opencv"
    assert default.identity() != other.identity()
    assert {k for k in default.identity() if default.identity()[k] != other.identity()[k]} == {"resize"}
    cut = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    assert (chip_of(cut, default.chip) != chip_of(cut, other.chip)).any()


def test_a_config_can_ask_for_the_other_back_end(miniature, tmp_path):
    config = {**MINIATURE, "input": {**MINIATURE["input"], "resize": "stretch, OpenCV bilinear"}}
    folder = save(tmp_path, dict(miniature.state_dict()), config)
    assert load_model(folder).chip.resize == "opencv"
    assert load_model(folder, resize="pil").chip.resize == "pil"


def test_identity_follows_what_changes_an_embedding_and_nothing_else(miniature, tmp_path):
    state = dict(miniature.state_dict())
    first = load_model(save(tmp_path / "a", state, MINIATURE)).identity()
    assert load_model(save(tmp_path / "b", state, {**MINIATURE, "comment": "new"})).identity() == first
    larger = {**MINIATURE, "input": {**MINIATURE["input"], "size": [192, 192]}}
    eps = {**MINIATURE, "pool": {"eps": 1e-3}}
    other = {**state, "bn.bias": state["bn.bias"] + 1}
    changed = [
        load_model(save(tmp_path / "c", state, larger)).identity(),
        load_model(save(tmp_path / "d", state, eps)).identity(),
        load_model(save(tmp_path / "e", other, MINIATURE)).identity(),
    ]
    assert all(one != first for one in changed)
    json.dumps(first, allow_nan=False)


def test_the_embedded_model_is_there_small_and_trained():
    model = load_model(EMBEDDED)
    assert (EMBEDDED_FOLDER / WEIGHTS).stat().st_size < 4 * 2**20
    assert embedding(model).shape == (256,)
    untrained = build_miewid(MINIATURE).state_dict()
    assert not torch.equal(
        load_file(EMBEDDED_FOLDER / WEIGHTS)["bn.running_mean"], untrained["bn.running_mean"]
    )


def test_both_shared_models_give_the_goldens_embeddings(shared):
    seen = set()
    for about in sorted((shared / "goldens").glob("*.json")):
        golden, name = (
            np.load(about.with_suffix(".npz")),
            json.loads(about.read_text(encoding="utf-8"))["model"],
        )
        model = load_model(shared / "models" / name)
        with torch.no_grad():
            for side in (0, 1):
                found = model.network(model.normalise([golden[f"chip{side}"]]))[0].numpy()
                wanted = golden[f"embedding{side}"]
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
        seen.add(name)
    assert seen == {"mini_miewid_cows", "mobilenetv2_100_imagenet"}
