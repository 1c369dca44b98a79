"""Tampered warehouses: commands answer or say what is wrong.

Nothing hangs, runs, leaves the warehouse or steers a terminal.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.store.reports import picture_name
from tasks.store.shard_files import footer_of
from tasks.store.warehouse import Warehouse
from tests.hostile.conftest import Said
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy, run_row

EVIL = "\x1b[2J\x1b]0;owned\x07"
Tamper = Callable[[Path], object]


def toy() -> Toy:
    photos = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(2)]
    return Toy(photos, [Pair("A0", "B0", 0.5), Pair("A1", "B1", 0.6)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy warehouse as it should be; read only."""
    return Path(toy().write(Warehouse(str(tmp_path_factory.mktemp("sound") / "w"))).root)


def shard(root: Path, table: str = "photos") -> Path:
    return next((root / table).rglob("*.parquet"))


def put(place: Path, rows: pa.Table, name: str, footer: dict[str, str] | None = None) -> None:
    """A Parquet file with a footer as the warehouse writes it, some of its values changed."""
    said = footer_of(name, FINGERPRINTS.get(name, "all"), rows.num_rows)
    said |= {k.encode(): v.encode() for k, v in (footer or {}).items()}
    buffer = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata(said), buffer)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(buffer.getvalue())


def rewritten(change: Callable[[pa.Table], pa.Table], of: str = "photos", **footer: str) -> Tamper:
    def tamper(root: Path) -> None:
        place = shard(root, of)
        put(place, change(pq.read_table(place, partitioning=None)), of, footer)

    return tamper


def with_column(name: str, values: Any, table: str = "photos") -> Tamper:
    def change(rows: pa.Table) -> pa.Table:
        made = values(rows.num_rows)
        return rows.set_column(
            rows.column_names.index(name), name, made if isinstance(made, pa.Array) else pa.array(made)
        )

    return rewritten(change, table)


def replaced(make: Callable[[Path], object], table: str = "photos") -> Tamper:
    def tamper(root: Path) -> None:
        place = shard(root, table)
        place.unlink()
        make(place)

    return tamper


def bytes_of(change: Callable[[bytes], bytes], table: str = "photos") -> Tamper:
    def tamper(root: Path) -> None:
        place = shard(root, table)
        place.write_bytes(change(place.read_bytes()))

    return tamper


def run(**values: Any) -> Tamper:
    """Another finished run, the newest, with some columns changed."""

    def tamper(root: Path) -> None:
        row = run_row("r9", "finished", datetime(2030, 1, 1, tzinfo=UTC), toy()) | values
        put(root / "runs" / "fingerprint=all" / "zz.parquet", pa.Table.from_pylist([row]), "runs")

    return tamper


CASES: dict[str, Tamper] = {
    "as it should be": lambda root: None,
    "a pipe for a shard": replaced(os.mkfifo),
    "a pipe beside the shards": lambda root: os.mkfifo(shard(root).with_name("zz.parquet")),
    "a device for a shard": replaced(lambda place: place.symlink_to("/dev/zero")),
    "a folder for a shard": replaced(Path.mkdir),
    "a link to itself for a shard": replaced(lambda place: place.symlink_to(place.name)),
    "a link to nothing for a shard": replaced(lambda place: place.symlink_to("/nothing")),
    "a link to a file of others": replaced(lambda place: place.symlink_to("/etc/passwd")),
    "a shard of no bytes": bytes_of(lambda data: b""),
    "a shard cut off": bytes_of(lambda data: data[: len(data) // 2]),
    "a shard without its start": bytes_of(lambda data: data[100:]),
    "a shard of noise": bytes_of(lambda data: bytes(range(256)) * 8),
    "a shard with a hole": bytes_of(lambda data: data[:60] + bytes(60) + data[120:]),
    "a footer of four gigabytes": bytes_of(lambda data: data[:-8] + b"\xff\xff\xff\xff" + data[-4:]),
    "a footer of a negative length": bytes_of(lambda data: data[:-8] + b"\x00\x00\x00\x80" + data[-4:]),
    "a shard of a later version": rewritten(lambda rows: rows, schema_version="9999"),
    "a shard of no version": rewritten(lambda rows: rows, schema_version=""),
    "a shard of an evil version": rewritten(lambda rows: rows, schema_version=EVIL),
    "a shard of version 10^5000": rewritten(lambda rows: rows, schema_version="9" * 5000),
    "a shard of Arabic version": rewritten(lambda rows: rows, schema_version="٣"),
    "a shard of another table": rewritten(lambda rows: rows, table="scores"),
    "a shard of another fingerprint": rewritten(lambda rows: rows, fingerprint="evil"),
    "a shard that miscounts": rewritten(lambda rows: rows, rows="7"),
    "no rows": rewritten(lambda rows: rows.slice(0, 0)),
    "all rows twice": rewritten(lambda rows: pa.concat_tables([rows, rows])),
    "no columns": rewritten(lambda rows: pa.table({"x": [1]})),
    "no ids": rewritten(lambda rows: rows.drop_columns(["photo_id"])),
    "5000 columns": rewritten(lambda rows: _wide(rows)),
    "a column twice": rewritten(lambda rows: rows.append_column("photo_id", rows["photo_id"])),
    "a column of partitions": rewritten(lambda rows: rows.append_column("fingerprint", rows["photo_id"])),
    "ids that are numbers": with_column("photo_id", lambda n: range(n)),
    "ids that are lists": with_column("photo_id", lambda n: [["a"]] * n),
    "ids that are null": with_column("photo_id", lambda n: pa.nulls(n, pa.string())),
    "ids that are one": with_column("photo_id", lambda n: ["A0"] * n),
    "ids of escape sequences": with_column("photo_id", lambda n: [f"{EVIL}{i}" for i in range(n)]),
    "names of escape sequences": with_column("identity", lambda n: [f"{EVIL}\u202e{i}" for i in range(n)]),
    "names of a megabyte": with_column("identity", lambda n: ["x" * 1_000_000] * n),
    "paths out of the root": with_column("path", lambda n: ["../../etc/passwd"] * n),
    "a root elsewhere": with_column("root", lambda n: ["/etc"] * n),
    "revisions of words": with_column("revision", lambda n: ["x"] * n),
    "revisions without end": with_column("revision", lambda n: pa.array([2**31 - 1] * n, pa.int32())),
    "boxes of words": with_column("box", lambda n: ["x"] * n),
    "scores that are no numbers": with_column("match_coverage", lambda n: ["x"] * n, "scores"),
    "scores that are NaN": with_column("match_coverage", lambda n: pa.array([float("nan")] * n, pa.float32()), "scores"),
    "cosines of infinity": with_column("cosine", lambda n: pa.array([float("inf")] * n, pa.float32()), "pairs"),
    "pairs of nobody": with_column("photo_a", lambda n: ["nobody"] * n, "pairs"),
    "a partition of no name": lambda root: shutil.copytree(shard(root).parent, root / "photos" / "fingerprint="),
    "a partition of wildcards": lambda root: shutil.copytree(shard(root).parent, root / "photos" / "fingerprint=*"),
    "a partition in a partition": lambda root: shutil.copytree(shard(root).parent, root / "photos" / "fingerprint=x" / "fingerprint=y"),
    "a partition that leads away": lambda root: (root / "photos" / "fingerprint=zz").symlink_to("/etc"),
    "a partition that leads to itself": lambda root: (root / "photos" / "fingerprint=zz").symlink_to(root / "photos"),
    "a partition that is a file": lambda root: (root / "photos" / "fingerprint=zz").write_text("x"),
    "another partition's name": lambda root: shutil.copytree(shard(root).parent, root / "photos" / "identity=Evil"),
    "a shard of wildcards": lambda root: shutil.copy(shard(root), shard(root).with_name("*.parquet")),
    "a shard of quotes": lambda root: shutil.copy(shard(root), shard(root).with_name("x'); DROP VIEW photos; --.parquet")),
    "a shard of escape sequences": lambda root: shutil.copy(shard(root), shard(root).with_name(f"{EVIL}.parquet".replace("/", ""))),
    "a shard in capitals": lambda root: shutil.copy(shard(root), shard(root).with_name("EVIL.parquet")),
    "a table that nobody knows": lambda root: shutil.copytree(root / "photos", root / "evil"),
    "a table that is a file": lambda root: (shutil.rmtree(root / "scores"), (root / "scores").write_text("x")),
    "a table that leads away": lambda root: (shutil.rmtree(root / "scores"), (root / "scores").symlink_to("/etc")),
    "no runs": lambda root: shutil.rmtree(root / "runs"),
    "no photos": lambda root: shutil.rmtree(root / "photos"),
    "a snapshot of nothing": lambda root: (root / "snapshots" / "snapshot=evil").mkdir(parents=True),
    "a snapshot of pipes": lambda root: ((root / "snapshots" / "snapshot=evil").mkdir(parents=True), os.mkfifo(root / "snapshots" / "snapshot=evil" / "photos.parquet")),
    "a run that leads out": run(run_id="../../../etc/passwd"),
    "a run of escape sequences": run(run_id=f"z{EVIL}"),
    "a run of no name": run(run_id=""),
    "a run of 10,000 letters": run(run_id="z" * 10_000),
    "a run of quotes": run(run_id="z' OR 1=1 --"),
    "a run of another layer": run(run_id="z", layer=EVIL),
    "a run of a snapshot elsewhere": run(run_id="z", snapshot="../../evil"),
    "a run of fingerprints elsewhere": run(run_id="z", photos_fingerprint="../../etc"),
    "a run of fingerprints of wildcards": run(run_id="z", photos_fingerprint="*"),
    "a run of no settings": run(run_id="z", settings=""),
    "a run of settings that are no JSON": run(run_id="z", settings="{"),
    "a run of settings that are a list": run(run_id="z", settings="[]"),
    "a run of settings of wrong types": run(run_id="z", settings=json.dumps({"top_k": "x", "neighbours": {"a": 1}})),
    "a run of settings in settings": run(run_id="z", settings="[" * 5000),
    "a run of counts of words": run(run_id="z", counts='{"pairs": "x"}'),
    "a run of timings of words": run(run_id="z", timings='"x"'),
    "a run of endless neighbours": run(run_id="z", top_k=2**31 - 1),
    "a run of negative neighbours": run(run_id="z", top_k=-1, same_name_k=-1),
    "a run of no state that is known": run(run_id="z", status=EVIL),
    "a report that was deleted": run(run_id="z"),
}  # fmt: skip


def _wide(rows: pa.Table) -> pa.Table:
    extra = {f"c{i}": [0] * rows.num_rows for i in range(5000)}
    return pa.table({**dict(zip(rows.column_names, rows.columns, strict=True)), **extra})


QUERIES = (
    "SELECT photo_id, identity, path, run_id FROM photos, runs ORDER BY ALL",
    "SELECT (SELECT count(*) FROM pair_scores) AS scores, (SELECT count(*) FROM suspects) AS suspects, layer FROM current_run",
)
SAMPLE = 12
"""One case in so many is tried by the default suite: opening a warehouse takes a second."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if i % SAMPLE else []) for i, n in enumerate(CASES)]
)
def test_a_tampered_warehouse_is_answered_from_or_refused_with_words(
    name: str, sound: Path, tmp_path: Path, say: Callable[..., Said]
) -> None:
    root = Path(shutil.copytree(sound, tmp_path / "w", symlinks=True))
    CASES[name](root)
    before = sorted(str(path) for path in tmp_path.rglob("*") if not path.is_symlink())
    code, out, err = say("report", "--warehouse", root)
    assert out if code == 0 else err
    for query in QUERIES:
        code, out, err = say("sql", query, "--warehouse", root)
        assert out if code == 0 else err
        assert "root:x:0:0" not in out
    assert sorted(str(path) for path in tmp_path.rglob("*") if not path.is_symlink()) == before


def test_a_report_that_is_gone_is_not_announced(
    sound: Path, tmp_path: Path, say: Callable[..., Said]
) -> None:
    root = Path(shutil.copytree(sound, tmp_path / "w"))
    code, out, err = say("report", "--warehouse", root)
    assert (code, out) == (1, "")
    assert "is gone" in err
    assert "cure" in err
    (root / "reports").mkdir()
    (root / "reports" / "r1.html").write_text("page")
    assert say("report", "--warehouse", root)[:2] == (0, f"{root}/reports/r1.html\n")


def test_one_file_of_a_report_holds_its_pictures_and_nothing_else(
    sound: Path, tmp_path: Path, say: Callable[..., Said]
) -> None:
    root, out = Path(shutil.copytree(sound, tmp_path / "w")), tmp_path / "new" / "one.html"
    one = ("report", "--warehouse", root, "--self-contained", "-o", out)
    code, printed, err = say(*one)
    assert (code, printed, out.exists()) == (1, "", False)
    assert "is gone" in err
    (root / "reports" / "pictures").mkdir(parents=True)
    name = picture_name(b"RIFF")
    page = f"""<meta content="img-src 'self' file: data:;"><img src="pictures/{name}" alt="a"><img src="pictures/../../runs/{name}">
&lt;img src=&#34;pictures/{name}&#34;"""
    (root / "reports" / "r1.html").write_text(page)
    assert "is gone" in say(*one)[2]
    (root / "reports" / "pictures" / name).write_bytes(b"else")
    assert "not what a run wrote" in say(*one)[2]
    assert not out.exists()
    (root / "reports" / "pictures" / name).write_bytes(b"RIFF")
    assert say(*one)[:2] == (0, f"{out}\n")
    assert out.read_text() == page.replace("'self' file: ", "").replace(
        f'<img src="pictures/{name}"',
        f'<img src="data:image/webp;base64,{base64.b64encode(b"RIFF").decode()}"',
        1,
    )
    assert say("report", "--warehouse", root, "-o", out)[0] == 2
