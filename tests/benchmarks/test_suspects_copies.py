"""Planted files: every kind does what it says, and sources and names are the same every time."""

import random
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from schemas.catalogue.reader import read_catalogue
from tests.benchmarks.suspects import copies
from tests.benchmarks.suspects.copies import KINDS, TWO, Source, distorted, planted_bursts, planted_copies

RNG = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8), (0, 0), 3)
PHOTO = cv2.normalize(PHOTO, None, 60, 180, cv2.NORM_MINMAX)


def sources(root, animals=5, each=4):
    return [
        Source(f"{a}{i}", str(root), "p.png", None, 0.0, f"n{a}", "cat" if a < 3 else "dog", "left")
        for a in range(animals)
        for i in range(each)
    ]


def test_every_kind_does_what_it_says():
    made = {kind: distorted(PHOTO, kind, random.Random(1)) for kind in KINDS}
    assert (made["turned 90"] == np.rot90(PHOTO)).all()
    assert (made["turned 180"] == PHOTO[::-1, ::-1]).all()
    assert (made["mirrored"] == PHOTO[:, ::-1]).all()
    assert made["cropped 80"].shape == (48, 72, 3)
    assert made["halved"].shape == (30, 45, 3)
    assert made["turned 10"].shape == PHOTO.shape
    assert abs(made["brightness 30"].mean() / PHOTO.mean() - 1) == pytest.approx(0.3, abs=0.03)
    assert 0 < np.abs(made["JPEG 30"].astype(int) - PHOTO).mean() < 8
    parts = (PHOTO[i : i + 48, j : j + 72] for i in range(13) for j in range(19))
    assert any((part == made["cropped 80"]).all() for part in parts)
    assert (distorted(PHOTO, TWO, random.Random(2)) == distorted(PHOTO, TWO, random.Random(2))).all()
    assert Counter(KINDS).keys() == {
        "turned 90", "turned 180", "turned 10", "cropped 80", "mirrored", "halved", "JPEG 30", "brightness 30",
    }  # fmt: skip


def test_a_frame_is_nearly_the_photo():
    frame = copies.frame(PHOTO, random.Random(0))
    assert frame.shape == PHOTO.shape
    assert 0 < np.abs(frame.astype(int) - PHOTO).mean() < 25


def test_copies_are_of_every_kind_and_under_the_name_of_another_animal_of_the_species(tmp_path):
    found = planted_copies(sources(tmp_path), 1)
    assert Counter(extra.kind for extra in found) == Counter(2 * [*KINDS, TWO])
    assert len({extra.photo_id for extra in found}) == 18
    assert len({extra.source.photo_id for extra in found}) == 18
    for extra in found:
        assert extra.wrong
        assert (extra.name in {"n0", "n1", "n2"}) == (extra.source.species == "cat")
    assert planted_copies(sources(tmp_path)[::-1], 1) == found
    assert planted_copies(sources(tmp_path), 2) != found


def test_an_only_animal_of_its_species_is_not_copied(tmp_path):
    lonely = replace(sources(tmp_path)[0], species="fox", name="reynard")
    some = [*sources(tmp_path, 2), *(replace(lonely, photo_id=f"f{i}") for i in range(4))]
    assert {extra.source.species for extra in planted_copies(some, 1)} == {"cat"}


def test_one_frame_of_each_burst_is_misnamed(tmp_path):
    found = planted_bursts(sources(tmp_path), 3, count=4)
    for i in range(4):
        frames = [extra for extra in found if extra.photo_id.startswith(f"burst-3-{i:02d}")]
        assert [extra.wrong for extra in frames] == [False, False, True]
        assert len({extra.source.photo_id for extra in frames}) == 1
        assert {extra.encounter for extra in frames} == ({f"burst-3-{i}"} if i % 2 else {None})


def test_written_files_are_a_catalogue_and_written_once(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "p.png")
    extras = planted_copies(sources(tmp_path), 1)
    path = copies.write_extras(tmp_path / "planted", extras, 10**6)
    catalogue = read_catalogue(str(path))
    assert {e.photo_id: (e.identity, e.species, e.viewpoint) for e in catalogue.entries} == {
        x.photo_id: (x.name, x.source.species, "left") for x in extras
    }
    halved = next(x for x in extras if x.kind == "halved")
    file = tmp_path / "planted" / f"images/{halved.photo_id}.jpg"
    assert Image.open(file).size == (45, 30)
    before = file.stat().st_mtime_ns
    copies.write_extras(tmp_path / "planted", extras, 10**6)
    assert file.stat().st_mtime_ns == before
