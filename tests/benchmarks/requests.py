"""How many requests each command sends to an object store, and of which kind.

    python -m tests.benchmarks.requests
    python -m tests.benchmarks.requests --photos 12 --on-the-store --json requests.json

A catalogue of drawn photos goes into a bucket of an S3 server on loopback, by the real command line; a proxy
before the store counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.flows.running import environment
from tests.object_store import BUCKET, Proxy, client_of, proxy_before, s3_server
from tests.object_store import environment as store_environment
from tests.small_catalogue import TINY, rewrite, small_catalogue

_APART = 3
"""Every third photo of the drawn catalogue is taken, so that names have several encounters."""
METHODS = ("LIST", "GET", "HEAD", "PUT", "DELETE")
QUERY = "SELECT photo_a, photo_b, round(cosine, 2) AS cosine FROM pair_scores ORDER BY cosine DESC LIMIT 5"


@dataclass(frozen=True)
class Command:
    """What one command asked of the store, and how long it took."""

    name: str
    requests: int
    methods: dict[str, int]
    places: dict[str, int]
    """Requests by table, or by what else lies in the warehouse."""
    seconds: float


def commands(catalogues: Sequence[str], warehouse: str, toml: Path) -> Iterator[tuple[str, list[str]]]:
    """Each command with its name; the second catalogue holds one photo more than the first."""
    there = ["--warehouse", warehouse]
    toml.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in TINY.items()))
    for name, catalogue in (
        ("first run", catalogues[0]),
        ("unchanged rerun", catalogues[0]),
        ("one photo more", catalogues[1]),
    ):
        yield name, ["run", catalogue, *there, "--settings", str(toml)]
    yield "sql: one view", ["sql", QUERY, *there]
    yield "sql: SELECT 1", ["sql", "SELECT 1", *there]
    yield "suspects", ["suspects", *there]
    yield "report", ["report", *there]
    yield "check", ["check", *there]


def measure(proxy: Proxy, name: str, arguments: Sequence[str]) -> Command:
    """Run one command to its end and count."""
    proxy.forget()
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        env=environment(**store_environment(proxy.endpoint)),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    places = Counter(_place(request.key) for request in proxy.requests)
    return Command(
        name,
        len(proxy.requests),
        {method: proxy.count()[method] for method in METHODS},
        dict(places.most_common()),
        round(time.perf_counter() - begun, 1),
    )


def _place(key: str) -> str:
    folder, _, rest = key.partition("/")
    return (rest.partition("/")[0] or "(all)") if folder == "warehouse" else folder


def table(found: Sequence[Command]) -> str:
    """The counts as a table."""
    head = ["command", "requests", *METHODS, "seconds"]
    rows = [[c.name, c.requests, *c.methods.values(), c.seconds] for c in found]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--on-the-store", action="store_true", help="the photos lie in the bucket, too")
    parser.add_argument("--json", type=Path, help="also write all counts to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server() as endpoint, proxy_before(endpoint) as proxy:
        whole = small_catalogue(Path(folder, "photos"))
        catalogues = [
            str(rewrite(whole, f"{count}.csv", lambda rows, n=count: rows[::_APART][:n]))
            for count in (given.photos, given.photos + 1)
        ]
        if given.on_the_store:
            catalogues = [_put(endpoint, whole.parent, Path(path).name) for path in catalogues]
        found = []
        for name, arguments in commands(catalogues, f"s3://{BUCKET}/warehouse", Path(folder, "pairx.toml")):
            found.append(measure(proxy, name, arguments))
            print(found[-1].name, found[-1].places, file=sys.stderr, flush=True)
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps([asdict(command) for command in found], indent=1))


def _put(endpoint: str, folder: Path, name: str) -> str:
    """Put all files of a catalogue's folder into the bucket; returns the catalogue's address."""
    client = client_of(endpoint)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.put_object(Bucket=BUCKET, Key=f"catalogue/{path.relative_to(folder)}", Body=path.read_bytes())
    return f"s3://{BUCKET}/catalogue/{name}"


if __name__ == "__main__":
    main()
