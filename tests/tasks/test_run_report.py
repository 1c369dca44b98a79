from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import PairxError
from schemas.settings import EMBEDDED_NOTICE
from tasks.check.findings import check
from tasks.job import Job
from tasks.pages.self_contained import self_contained
from tasks.photo_files import SEEN_BY, read_cut, refusing_photos
from tasks.runs.log import RunLog, StageLog, balances
from tasks.runs.remaining import look
from tasks.runs.report import suspects_of, write_report
from tasks.runs.report_photos import LONGEST, Picture, photo_pictures
from tasks.runs.tonight import tonight_of
from tasks.store.file_record import recording
from tasks.store.reports import photo_name
from tasks.store.warehouse import Warehouse
from tasks.store.written import Written, hearing
from tests.small_catalogue import BROKEN_CODES, Stages, files_of


class Page(HTMLParser):
    """Text, tags and references of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def job_at(done: Stages, url: str) -> Job:
    """The job of the finished stages in a warehouse of its own with the same files."""
    job = Job(**{**vars(done.job), "warehouse": Warehouse(url)})
    for path, data in files_of(done.warehouse).items():
        job.warehouse.write_file(path, data)
    return job


def reported(done: Stages, job: Job) -> tuple[str, dict[str, int], list[Written]]:
    """Write a report: its address, its counts, and which files were written for it."""
    log = RunLog(
        job, remarks=("read: path", "no photo has an encounter"), oddities=("no photo has an encounter",)
    )
    state = done.gallery.state if done.gallery else None
    with (
        look(job, log.columns(state), keep=True) as (connection, _),
        recording(job.warehouse, log.run_id),
        hearing() as files,
    ):
        address, counts = write_report(
            job,
            log,
            connection,
            balances(connection),
            [StageLog("embed", 2, seconds=1.5, devices=("cpu, torch 2.15.0", "NVIDIA H100"))],
            tonight_of(connection),
        )
    return address, counts, files


@pytest.fixture(scope="module")
def written(done: Stages, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, int], str]:
    """Address, counts and page of a report on the finished stages."""
    address, counts, _ = reported(done, job_at(done, str(tmp_path_factory.mktemp("report") / "w")))
    return address, counts, Path(address).read_text(encoding="utf-8")


def test_what_looks_odd_is_a_warning_and_what_was_read_is_none(
    written: tuple[str, dict[str, int], str],
) -> None:
    html = written[2]
    assert '<li class="warning">no photo has an encounter</li>' in html
    assert '<li class="remark">read: path</li>' in html
    assert html.count("no photo has an encounter") == 1


def test_the_report_lies_in_the_warehouse_with_its_pictures(written: tuple[str, dict[str, int], str]) -> None:
    address, _, html = written
    assert Path(address).parent.name == "reports"
    page = Page(html)
    assert page.references
    beside = [r for r in page.references if not r.startswith(("data:", "#"))]
    assert beside
    assert all(r.startswith("pictures/") and (Path(address).parent / r).is_file() for r in beside)
    assert "@import" not in html
    assert "url(http" not in html


def test_the_report_shows_counts_sums_failures_and_the_notice(
    done: Stages, written: tuple[str, dict[str, int], str]
) -> None:
    _, counts, html = written
    words = Page(html).words
    rows = len(done.catalogue.entries)
    assert counts["photos"] == rows
    assert counts["failures"] == sum(BROKEN_CODES.values())
    assert counts["figures"] == 2
    assert counts["pairs"] == counts["scored"] > 40
    assert counts["suspects"] > 2
    assert f"photos {rows} = embedded {rows - 6} + failed 6" in words
    for code in BROKEN_CODES:
        assert code in words.replace(" ", "_") or code.replace("_", " ") in words
    assert EMBEDDED_NOTICE in words
    assert done.job.prints.scores in words
    assert "computed on NVIDIA H100; cpu, torch 2.15.0" in words


def test_the_report_has_figures_of_what_was_drawn(written: tuple[str, dict[str, int], str]) -> None:
    page = Page(written[2])
    pictures = [r for r in page.references if r.endswith(".webp") and "photo-" not in r]
    # Chips, overlay, colours; two suspects of one pair show the same ones.
    assert len(set(pictures)) == 3 * written[1]["figures"]


def test_a_picture_is_stored_once_and_a_damaged_one_is_found_and_written_again(
    done: Stages, tmp_path: Path
) -> None:
    job = job_at(done, str(tmp_path / "w"))
    address, counts, files = reported(done, job)
    pictures = sorted((f for f in files if "/pictures/" in f.path), key=lambda f: "/photo-" in f.path)
    figures = [file.path for file in pictures if "/photo-" not in file.path]
    assert len(figures) == 3 * counts["figures"]
    assert len(pictures) > len(figures)
    again = reported(done, job)[2]
    assert [file for file in again if "/pictures/" in file.path] == []
    report = check(job.warehouse)
    assert {f.path for f in pictures} <= report.listing.by_path.keys()
    assert [p for p in report.problems if p.where.startswith("reports/")] == []

    damaged, gone = (Path(job.warehouse.root, file.path) for file in pictures[:2])
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    gone.unlink()
    assert [(p.kind, p.where) for p in check(job.warehouse).problems if p.where.startswith("reports/")] == [
        ("changed file", pictures[0].path)
    ]
    for record in (Path(job.warehouse.root) / "files").rglob("*.parquet"):
        record.unlink()
    assert (pictures[0].path in [p.where for p in check(job.warehouse).problems]) == (
        pictures[0].path in figures
    )
    damaged.unlink()
    assert sorted(f.path for f in reported(done, job)[2] if "/pictures/" in f.path) == sorted(
        f.path for f in pictures[:2]
    )
    assert damaged.read_bytes() == whole
    assert Path(address).is_file()


def test_one_file_holds_the_report_and_its_pictures(done: Stages, tmp_path: Path) -> None:
    job = job_at(done, str(tmp_path / "w"))
    address, _, files = reported(done, job)
    place, run_id = job.warehouse, Path(address).stem
    one = Page(self_contained(place, run_id)).references
    assert all(r.startswith(("data:", "#")) for r in one)
    for beside, within in zip(Page(Path(address).read_text(encoding="utf-8")).references, one, strict=True):
        if beside.startswith("pictures/"):
            data = (Path(address).parent / beside).read_bytes()
            assert within == f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        else:
            assert within == beside
    assert "img-src data:;" in self_contained(place, run_id)
    picture = next(
        Path(place.root, f.path) for f in files if "/pictures/" in f.path and "/photo-" not in f.path
    )
    picture.write_bytes(b"RIFF")
    with pytest.raises(PairxError, match="not what a run wrote"):
        self_contained(place, run_id)
    picture.unlink()
    with pytest.raises(PairxError, match="is gone"):
        self_contained(place, run_id)


def test_a_question_without_a_figure_shows_both_photos_as_far_as_they_can_be_read(
    done: Stages, tmp_path: Path
) -> None:
    job = job_at(done, str(tmp_path / "w"))
    log = RunLog(job)
    with look(job, log.columns(done.gallery.state if done.gallery else None), keep=True) as (connection, _):
        bare = [each for each in suspects_of(connection, job.layers[0], []) if each.chips is None]
        assert bare
        found = photo_pictures(connection, bare, (), job.settings.max_pixels)
        names = {picture.name for picture in found.values()}
        known = photo_pictures(connection, bare, names, job.settings.max_pixels)
        row = connection.execute(
            f"SELECT {', '.join(SEEN_BY)} FROM photos WHERE photo_id = ?", [bare[0].photo_a]
        ).fetchall()[0]
        with refusing_photos("out of reach"):
            assert photo_pictures(connection, bare, (), job.settings.max_pixels) == {}
    assert known == {photo: Picture(picture.name, None) for photo, picture in found.items()}
    assert found.keys() == {photo for each in bare for photo in (each.photo_a, each.photo_b)}
    photo = dict(zip(SEEN_BY, row, strict=True))
    assert found[photo["photo_id"]].name == photo_name(photo["photo_id"], photo["chip_id"])
    cut = read_cut(photo, job.settings.max_pixels)
    data = found[photo["photo_id"]].data
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        scale = min(1.0, LONGEST / max(cut.shape[:2]))
        assert image.size == pytest.approx((cut.shape[1] * scale, cut.shape[0] * scale), abs=1)
        shown = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX), dtype=float)
    wanted = np.asarray(Image.fromarray(cut).resize((8, 8), Image.Resampling.BOX), dtype=float)
    assert np.abs(shown - wanted).mean() < 8
    page = Path(reported(done, job)[0]).read_text(encoding="utf-8")
    assert {f"pictures/{name}" for name in names} <= set(Page(page).references)
