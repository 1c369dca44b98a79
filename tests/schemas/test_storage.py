from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import fsspec.config
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from schemas.errors import NoStorage, StorageError
from schemas.storage import TRIES, TRIES_OF_A_REQUEST, Storage, storage_at
from schemas.storage_errors import masked, refuse_secrets
from tests.object_store import BUCKET, FAULTS, Proxy, forget_connections, place


@pytest.fixture(params=["memory", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    if request.param == "memory":
        MemoryFileSystem.store.clear()
        return storage_at("memory://place/w")
    request.getfixturevalue("store")
    return storage_at(place("storage"))


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries."""
    monkeypatch.setattr("schemas.storage._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


def test_files_come_back_whole_and_in_ranges(storage: Storage) -> None:
    path = f"{storage.root}/a/b.bin"
    storage.put(path, b"0123456789")
    assert (storage.get(path), storage.get(path, 7), storage.get(path, 2, 5)) == (
        b"0123456789",
        b"789",
        b"234",
    )
    with pytest.raises(FileNotFoundError):
        storage.get(f"{storage.root}/a/c.bin")


def test_a_listing_sees_all_depths_and_what_was_written_since(storage: Storage) -> None:
    assert storage.find(storage.root) == {}
    for number, name in enumerate(("a/x/1", "a/y/2", "b/3")):
        storage.put(f"{storage.root}/{name}", b"z" * (number + 1))
        assert len(storage.find(storage.root)) == number + 1
    found = storage.find(storage.root)
    assert {path.removeprefix(storage.root): info.size for path, info in found.items()} == {
        "/a/x/1": 1, "/a/y/2": 2, "/b/3": 3
    }  # fmt: skip
    assert storage.find(f"{storage.root}/a").keys() == {f"{storage.root}/a/x/1", f"{storage.root}/a/y/2"}
    storage.put(f"{storage.root}/b/3", b"another")
    assert storage.find(storage.root)[f"{storage.root}/b/3"] != found[f"{storage.root}/b/3"]
    storage.remove([f"{storage.root}/b/3", f"{storage.root}/a/x/1"])
    storage.remove([f"{storage.root}/b/3"])
    assert storage.find(storage.root).keys() == {f"{storage.root}/a/y/2"}


def test_of_many_who_create_one_file_one_succeeds(storage: Storage) -> None:
    path = f"{storage.root}/lease"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: storage.create(path, b"%d" % n), range(24)))
    [winner] = [n for n, ours in enumerate(made) if ours]
    assert storage.get(path) == b"%d" % winner
    assert not storage.create(path, b"later")
    assert storage.create(path, b"%d" % winner)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("seed", range(3))
def test_requests_that_fail_at_random_change_nothing(store: Proxy, seed: int) -> None:
    storage = storage_at(place("faulty"))
    store.slow_seconds = 0.05
    store.fail(seed, 0.3)
    data = {f"{storage.root}/{i}": bytes([i]) * (1 + 5000 * (i % 3)) for i in range(30)}
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda item: storage.create(*item), data.items()))
        read = list(pool.map(storage.get, data))
    assert all(made)
    assert read == list(data.values())
    assert {path: info.size for path, info in storage.find(storage.root).items()} == {
        p: len(d) for p, d in data.items()
    }
    assert sum(store.met.values()) > 5, "too few failed to tell"


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "slow"])
def test_a_store_that_always_fails_is_given_up_with_a_message(store: Proxy, fault: str) -> None:
    storage = storage_at(place("broken"))
    storage.put(f"{storage.root}/x", b"0123456789")
    store.forget()
    store.fail(0, 1.0, [fault])
    with pytest.raises(StorageError, match="read|reached") as raised:
        storage.get(f"{storage.root}/x")
    # aiohttp, below the client, asks a second time where a connection that was kept breaks off.
    assert TRIES <= len(store.requests) <= 2 * TRIES * TRIES_OF_A_REQUEST
    assert raised.value.cure


@pytest.mark.usefixtures("hurry")
def test_a_store_that_says_nothing_is_given_up(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"config_kwargs": {"read_timeout": 0.3, "retries": {"total_max_attempts": 1}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", theirs)
    storage = Storage(place("silent"))
    store.fail(0, 1.0, ["stalled"])
    with pytest.raises(StorageError, match="cannot be reached"):
        storage.put(f"{storage.root}/x", b"y" * 2_000_000)
    assert len(store.requests) == TRIES


def _no_credentials(store: Proxy, patch: pytest.MonkeyPatch) -> str:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.delenv(name)
    return place("w")


def _nobody_listens(store: Proxy, patch: pytest.MonkeyPatch) -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    return place("w")


def _silence(store: Proxy, patch: pytest.MonkeyPatch) -> str:
    patch.setattr("schemas.storage._PROBE_SECONDS", 1.0)
    store.fail(0, 1.0, ["stalled"])
    return place("w")


def _no_permission(store: Proxy, patch: pytest.MonkeyPatch) -> str:
    store.fail(0, 1.0, ["403 AccessDenied"])
    return place("w")


def _read_only(store: Proxy, patch: pytest.MonkeyPatch) -> str:
    store.fail(0, 1.0, ["403 AccessDenied on PUT"])
    return place("w")


def _wrong_key(store: Proxy, patch: pytest.MonkeyPatch) -> str:
    store.fail(0, 1.0, ["403 InvalidAccessKeyId"])
    return place("w")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda *_: "s3://there-is-none/w", "no such bucket: s3://there-is-none/w"),
        (_no_credentials, r"there are no credentials[\s\S]*AWS_ACCESS_KEY_ID"),
        (_nobody_listens, r"cannot be reached[\s\S]*AWS_ENDPOINT_URL"),
        (_silence, "cannot be reached"),
        (_no_permission, "no permission to list"),
        (_read_only, "no permission to write"),
        (_wrong_key, "the credentials for .* are refused"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_once(
    store: Proxy, monkeypatch: pytest.MonkeyPatch, prepare: Callable[..., str], message: str
) -> None:
    url = prepare(store, monkeypatch)
    forget_connections()
    storage = storage_at(url)
    with pytest.raises(NoStorage, match=message) as raised:
        storage.probe(writing=f"{storage.root}/probe")
    assert raised.value.exit_code == 2
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("illness", ["503 SlowDown", "500 InternalError"])
def test_a_store_that_is_there_and_fails_is_no_wrong_address(store: Proxy, illness: str) -> None:
    store.fail(0, 1.0, [illness])
    forget_connections()
    storage = storage_at(place("w"))
    with pytest.raises(StorageError, match="could not list") as raised:
        storage.probe()
    assert raised.value.exit_code == 1


def test_a_probe_leaves_nothing_behind(storage: Storage) -> None:
    storage.probe(writing=f"{storage.root}/probe")
    assert storage.find(storage.root) == {}


def test_secrets_in_addresses_are_refused_and_never_shown() -> None:
    for url in ("s3://key:hush@bucket/w", "https://host/w?token=hush", "sftp://me:hush@host/w#hush"):
        with pytest.raises(NoStorage) as raised:
            refuse_secrets(url)
        assert "hush" not in str(raised.value)
    for url in (f"s3://{BUCKET}/w", "sftp://me@host/w", "/odd?name#here", "a:b@c/w"):
        refuse_secrets(url)
    assert masked("GET https://u:hush@h/x?sig=hush failed") == "GET https://…@h/x?… failed"
