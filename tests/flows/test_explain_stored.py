"""`pairx explain` with photos of a warehouse: the stored numbers, where the pair stands, and what goes wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cli import main as cli
from flows.notebook import explain
from flows.two_photos import two_photos
from schemas.errors import WarehouseError
from schemas.settings import EMBEDDED_NOTICE
from tasks.sql.console import connect_analyst
from tasks.store.warehouse import Warehouse
from tests.finished_runs import Finished
from tests.toy_warehouse import Photo, Toy

Main = Callable[..., tuple[int, str, str]]
PAIRS = """
SELECT p.*, j.probability FROM pair_scores AS p LEFT JOIN (SELECT pair_id, probability FROM judgements) AS j USING (pair_id)
ORDER BY inverted_residual_mean IS NULL, pair_id
"""


@pytest.fixture
def explain_them(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Main:
    """Runs `pairx explain` in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pairx", "explain", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        return cli._run(), *capfd.readouterr()

    return run


def rows(finished: Finished, query: str = PAIRS) -> list[dict[str, Any]]:
    connection = connect_analyst(finished.warehouse.url, query=query)
    try:
        found = connection.execute(query)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    finally:
        connection.close()


def test_a_stored_pair_has_the_stored_numbers_and_its_standing(
    explain_them: Main, undisturbed: Finished, tmp_path: Path
) -> None:
    stored, *others = rows(undisturbed)
    a, b = stored["photo_a"], stored["photo_b"]
    root = undisturbed.warehouse.root
    code, said, err = explain_them("--warehouse", root, b, a, "--maps", 1, "--arrays", "x.npz")
    assert code == 0, err
    assert EMBEDDED_NOTICE[:60] in err
    assert f"{a} stands first" in err
    assert f"pair {stored['pair_id']} of " in said
    assert "numbers as stored" in said
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        for name in (
            "cosine",
            "match_coverage",
            "inverted_residual_mean",
            "residual_mean",
            "top_residual_mean",
        ):
            assert float(found[name]) == pytest.approx(stored[name], rel=2e-3)
        assert found["homography"].ravel() == pytest.approx(stored["homography"], rel=1e-6)
        assert len(found["local_point0"]) == len(found["local_inlier"]) == stored["n_local_matches"]
        assert (str(found["photo0"]), str(found["photo1"])) == (a, b)
        assert str(found["layer"]) == stored["layer"]
        assert (str(found["model"]), str(found["preset"]), str(found["matcher"])) == (
            "embedded",
            "published",
            "sift",
        )
        (photo,) = rows(undisturbed, f"SELECT box, theta FROM photos WHERE photo_id = '{a}'")
        assert found["box0"].tolist() == pytest.approx(photo["box"])
        assert float(found["theta0"]) == photo["theta"]
    for name, called in (
        ("cosine", "cosine"),
        ("match_coverage", "coverage"),
        ("inverted_residual_mean", "inverted residual mean"),
        ("probability", "probability"),
    ):
        if stored[name] is None:
            continue
        for same, kind in ((True, "one name"), (False, "two names")):
            values = [r[name] for r in others if r["same_identity"] is same and r[name] is not None]
            if not values:
                continue
            line = re.search(rf"^{called} [\d.]+: .*?(\d+) % of (\d+) pairs of {kind}", said, re.MULTILINE)
            assert line is not None, said
            assert int(line[2]) == len(values)
            assert abs(int(line[1]) - 100 * np.mean([v < stored[name] for v in values])) <= 1


def test_the_bare_photos_are_those_of_the_figure(
    explain_them: Main, undisturbed: Finished, tmp_path: Path
) -> None:
    stored = rows(undisturbed)[0]
    names = (stored["photo_a"], stored["photo_b"])
    place = ("--warehouse", undisturbed.warehouse.root, *names, "--maps", 1)
    code, _, err = explain_them(*place, "--plain", "deep/plain.png", "-o", "all.png", "--local-matches")
    assert code == 0, err
    found = explain(*names, warehouse=undisturbed.warehouse.url, n_pixel_maps=1)
    plain = np.asarray(Image.open(tmp_path / "deep" / "plain.png"))
    assert (plain == found.drawn().photos).all()
    with_local, without = found.drawn(local_matches=True), found.drawn()
    assert with_local.local is not None
    assert without.local is None
    assert with_local.local.shape == plain.shape
    assert with_local.figure.shape[0] > without.figure.shape[0] + plain.shape[0]
    assert (np.asarray(Image.open(tmp_path / "all.png")) == with_local.figure).all()


def test_other_settings_are_not_compared(explain_them: Main, undisturbed: Finished) -> None:
    stored = rows(undisturbed)[0]
    place = ("--warehouse", undisturbed.warehouse.root, stored["photo_a"], stored["photo_b"], "--maps", 0)
    code, said, err = explain_them(*place, "--preset", "paper")
    assert code == 0, err
    assert "not compared with pairs" in err
    assert "above" not in said


@pytest.mark.parametrize(
    ("name", "said", "cure"),
    [
        ("nobody", "has no photo 'nobody'", "near to it: "),
        ("d00001", "has no photo 'd00001'", "D0000"),
        ("x'; DROP", "has no photo", "lists them"),
    ],
)
def test_an_unknown_photo_is_named_with_those_near_to_it(
    explain_them: Main, undisturbed: Finished, name: str, said: str, cure: str
) -> None:
    stored = rows(undisturbed)[0]
    code, _, err = explain_them("--warehouse", undisturbed.warehouse.root, stored["photo_a"], name)
    assert code == 2
    assert said in err
    assert cure in err


def test_what_became_of_a_photo_is_said(
    explain_them: Main, undisturbed: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pairx_engine.errors import PhotoError
    from tasks import photo_files

    stored = rows(undisturbed)[0]
    place = ("--warehouse", undisturbed.warehouse.root, stored["photo_a"], stored["photo_b"])
    code, _, err = explain_them(*place, "--box-b", "1,2,30,40")
    assert (code, f"photo {stored['photo_b']} has its box in the warehouse" in err) == (2, True)
    (unread,) = rows(
        undisturbed, "SELECT photo_id FROM photos WHERE chip_id IS NULL ORDER BY photo_id LIMIT 1"
    )
    code, _, err = explain_them(*place[:3], unread["photo_id"])
    assert (code, f"photo {unread['photo_id']} could not be read when it was taken in" in err) == (2, True)
    monkeypatch.setattr(photo_files, "read_bytes", lambda root, path: b"other bytes")
    code, _, err = explain_them(*place)
    assert (code, "changed since it was ingested; run again" in err) == (2, True)
    assert f"photo {stored['photo_a']}: " in err

    def gone(root: str, path: str) -> bytes:
        raise PhotoError("missing_file", f"no file at {path}")

    monkeypatch.setattr(photo_files, "read_bytes", gone)
    code, _, err = explain_them(*place)
    assert (code, f"photo {stored['photo_a']}: no file at " in err) == (2, True)


def test_a_settings_table_of_another_version_is_said(tmp_path: Path) -> None:
    place = Toy([Photo("A"), Photo("B")], [], settings={"long_gone": 3}).write(Warehouse(str(tmp_path / "w")))
    with pytest.raises(
        WarehouseError, match="(?s)another version of the program.*run again with this version"
    ) as caught:
        two_photos(("A", "B"), (None, None), place.url, {})
    assert "long_gone" in str(caught.value)
