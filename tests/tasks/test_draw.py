from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pairx_engine.errors import PhotoError
from pairx_engine.figure.encoding import decode_map
from pairx_engine.photo.chips import chip_of
from pairx_engine.relevance.explainer import LayerExplainer
from tasks.job import Job, model_of
from tasks.photo_files import ViewCache
from tasks.stages import draw
from tasks.stages.draw import DrawShard, draw_shard, plan_draw
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, files_of, views_of
from tests.tasks.test_embed import cut_of


@pytest.fixture
def elsewhere(done: Stages, tmp_path: Path) -> Job:
    return Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})


def picture(data: bytes, form: str) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == form
    image.load()
    return image


def explanations(done: Stages) -> dict[Any, dict[str, Any]]:
    return views_of(done.warehouse, ("explanations",), done.columns())["explanations"]


def test_the_most_suspect_pairs_are_drawn(done: Stages) -> None:
    suspects = views_of(done.warehouse, ("suspects",), done.columns())["suspects"].values()
    order = dict.fromkeys(s["pair_id"] for s in sorted(suspects, key=lambda s: s["rank"]))
    assert len(order) > 2
    assert {pair for pair, _ in explanations(done)} == set(list(order)[: done.job.settings.figures])


def test_pictures_can_be_opened_and_fit_each_other(done: Stages) -> None:
    for row in explanations(done).values():
        assert picture(row["figure"], "WEBP").width > 200
        chips, overlay, colours = (picture(row[name], "WEBP") for name in ("chips", "overlay", "colours"))
        assert chips.size == overlay.size
        assert overlay.mode == "RGBA"
        assert np.asarray(overlay)[..., 3].max() > 0
        assert np.asarray(chips.convert("L")).std() > 5
        assert np.asarray(colours.convert("L")).std() > 1


def test_pixel_maps_are_those_of_the_first_matches(done: Stages) -> None:
    photos, model, layer = done.photos(), model_of(done.job), done.job.layers[0]
    matches = views_of(done.warehouse, ("matches",), done.columns())["matches"]
    explainer = LayerExplainer(model.network, [layer])
    for key, row in explanations(done).items():
        assert row["n_drawn"] == done.job.settings.n_pixel_maps == 2
        for side in "ab":
            assert len(row[f"maps_{side}"]) == len(row[f"peak_{side}"]) == 2
            cells = list(zip(matches[key][f"column_{side}"], matches[key][f"row_{side}"], strict=True))[:2]
            chip = chip_of(cut_of(photos[row[f"photo_{side}"]]), model.chip)
            wanted = explainer.pixel_maps(model.normalise([chip])[0], layer, cells).numpy()
            for png, peak, direct in zip(row[f"maps_{side}"], row[f"peak_{side}"], wanted, strict=True):
                found = decode_map(png, peak)
                assert found.max() == pytest.approx(peak)
                assert peak == pytest.approx(direct.max(), rel=1e-5)
                np.testing.assert_allclose(found, direct, rtol=0, atol=peak * 2e-5)


def test_plan_keeps_the_order_in_small_shards(done: Stages) -> None:
    item = done.draw[0].items[0]
    shards = plan_draw([item] * 9)
    assert [len(s.items) for s in shards] == [4, 4, 1]
    assert plan_draw([]) == []
    assert done.draw[0].name != DrawShard(done.draw[0].items[:1]).name


def test_one_shard_twice_gives_the_same_bytes(done: Stages, elsewhere: Job) -> None:
    draw_shard(elsewhere, done.draw[0])
    again, first = files_of(elsewhere.warehouse), files_of(done.warehouse)
    assert [path.partition("/")[0] for path in again] == ["explanations"]
    assert again == {path: first[path] for path in again}


def test_a_lost_photo_is_a_failure_of_its_pair(
    done: Stages, elsewhere: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = done.draw[0].items
    lost = next(p["photo_id"] for p in (items[0].photo_a, items[0].photo_b))

    class Leaky(ViewCache):
        def views(self, photo: Any, max_pixels: int, *ways: Any) -> Any:
            if photo["photo_id"] == lost:
                raise PhotoError("missing_file", "gone")
            return super().views(photo, max_pixels, *ways)

    monkeypatch.setattr(draw, "VIEWS", Leaky())
    result = draw_shard(elsewhere, DrawShard(items[:1]))
    assert (result.rows, result.failed) == (0, 1)
    (failure,) = elsewhere.warehouse.read("failures", elsewhere.prints.explanations).to_pylist()
    assert (failure["stage"], failure["item"], failure["code"]) == ("draw", items[0].key[0], "missing_file")
    assert failure["layer"] == items[0].key[1]


def test_a_pair_without_matches_is_drawn_without_maps(done: Stages, elsewhere: Job) -> None:
    item = done.draw[0].items[0]
    empty = {k: [] if isinstance(v, list) else v for k, v in item.matches.items()}
    result = draw_shard(
        elsewhere, DrawShard((type(item)(empty, item.relevances, item.photo_a, item.photo_b, ""),))
    )
    assert (result.rows, result.failed) == (1, 0)
    (row,) = elsewhere.warehouse.read("explanations", elsewhere.prints.explanations).to_pylist()
    assert (row["n_drawn"], row["maps_a"], row["peak_b"]) == (0, [], [])
    assert picture(row["figure"], "WEBP").width > 200
