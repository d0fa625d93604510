"""Pulls from a real S3 server, through a proxy where the server has to misbehave."""

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from mesh.core.ids import StorageKey
from mesh.storage.checksums import strongest
from mesh.storage.keys import StorageKeys
from mesh.storage.port import (
    AccessRefused,
    BucketNotFound,
    ObjectChanged,
    ObjectNotFound,
    ReadBroken,
    StorageError,
    StoreFailed,
    StoreUnreachable,
    TooManyObjects,
    UnsafeName,
)
from mesh.storage.pull import Puller
from mesh.storage.s3 import CHUNK_BYTES, S3Stores
from mesh.storage.s3_clients import S3Clients
from mesh.storage.stores import Stores
from mesh.storage.transfer import PullRequest

pytest_plugins = ["tests.support.s3"]

DEADLINE_S = 30
# Each would break boto3, or send it elsewhere.
BROKEN_AWS = {
    "AWS_PROFILE": "nobody",
    "AWS_DEFAULT_PROFILE": "nobody",
    "AWS_CA_BUNDLE": "/nowhere.pem",
    "AWS_CONFIG_FILE": "/proc/self/mem",
    "AWS_DATA_PATH": "/proc",
    "AWS_DEFAULTS_MODE": "broken",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_MAX_ATTEMPTS": "many",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "broken",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "broken",
    "AWS_RETRY_MODE": "broken",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "broken",
    "AWS_SESSION_TOKEN": "broken",
    "AWS_USE_FIPS_ENDPOINT": "true",
}


@pytest.fixture
def bucket(s3_server):
    return s3_server.bucket()


@pytest.fixture
def proxy(s3_server):
    with s3_server.proxy() as proxy:
        yield proxy


@pytest.fixture
def puller(tmp_path):
    """Pulls with the storage-config of the test, and closes its connections at the end."""
    stores = S3Stores()
    yield Puller(StorageKeys(tmp_path / "config"), stores.open)
    stores.close()


@pytest.fixture
def key(s3_server, bucket, tmp_path):
    """Writes the storage key `k`, by default for the test's bucket."""

    def write(**changed: str | None) -> None:
        s3_server.write_key(tmp_path / "config", "k", bucket, **changed)

    write()
    return write


@pytest.fixture
def target(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "m-1234567890"


def request(path: str, **more) -> PullRequest:
    return PullRequest(StorageKey("k"), path, **more)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


async def refused(puller: Puller, asked: PullRequest, target: Path) -> StorageError:
    """The error of a pull that must fail, having left nothing."""
    with pytest.raises(StorageError) as caught:
        await puller.pull(asked, target)
    assert list(target.parent.iterdir()) == []
    return caught.value


async def test_pull_object_with_and_without_a_slash_before_it(
    s3_server, bucket, key, puller, target
):
    content = os.urandom(3_000_000)
    s3_server.put(bucket, "sklearn/mnist-svm.joblib", content)
    for path in ("sklearn/mnist-svm.joblib", "/sklearn/mnist-svm.joblib"):
        pulled = await puller.pull(request(path), target)
        assert pulled.path == target / "mnist-svm.joblib"
        assert pulled.path.read_bytes() == content
        assert (pulled.size_bytes, pulled.files) == (3_000_000, 1)


async def test_pull_prefix_with_empty_files_and_folder_marks(
    s3_server, bucket, key, puller, target
):
    for name, content in {"config.pbtxt": b"c", "1/model.onnx": b"m", "1/none": b""}.items():
        s3_server.put(bucket, f"triton/net/{name}", content)
    s3_server.put(bucket, "triton/net/2/", b"")
    s3_server.put(bucket, "triton/net-other/x", b"not this")
    s3_server.put(bucket, "triton/net.old", b"nor this")
    for path in ("triton/net", "/triton/net/"):
        pulled = await puller.pull(request(path), target)
        assert (pulled.path, pulled.files, pulled.size_bytes) == (target, 3, 2)
        assert files(target) == {"config.pbtxt": b"c", "1/model.onnx": b"m", "1/none": b""}
        assert (target / "2").is_dir()


async def test_pull_object_wins_over_a_prefix_and_sorts_before_its_likes(
    s3_server, bucket, key, puller, target
):
    for name in ("m/x", "m", "m-1", "m.bak"):
        s3_server.put(bucket, name, name.encode())
    await puller.pull(request("m"), target)
    assert files(target) == {"m": b"m"}
    await puller.pull(request("m/"), target)
    assert files(target) == {"x": b"m/x"}


async def test_pull_name_with_unusual_characters(s3_server, bucket, key, puller, target):
    for name in ("sp ace", "é+%25&=", "…"):
        s3_server.put(bucket, f"m/{name}", name.encode())
    await puller.pull(request("m"), target)
    assert files(target) == {name: name.encode() for name in ("sp ace", "é+%25&=", "…")}


async def test_pull_schema_comes_from_the_same_bucket(s3_server, bucket, key, puller, target):
    s3_server.put(bucket, "m/model", b"m")
    s3_server.put(bucket, "schemas/m.json", b'{"inputs":[]}')
    pulled = await puller.pull(request("m/model", schema_path="schemas/m.json"), target)
    assert pulled.schema is not None
    assert pulled.schema.read_bytes() == b'{"inputs":[]}'


async def test_pull_bucket_wins_over_default_bucket_and_the_request_over_both(
    s3_server, key, puller, target
):
    older, newer, asked = (s3_server.bucket() for _ in range(3))
    for name in (older, newer, asked):
        s3_server.put(name, "m", name.encode())
    key(default_bucket=older)
    assert (await puller.pull(request("m"), target)).path.read_text() == older
    key(default_bucket=older, bucket=newer)
    assert (await puller.pull(request("m"), target)).path.read_text() == newer
    pulled = await puller.pull(request("m", bucket=asked), target)
    assert pulled.path.read_text() == asked


async def test_pull_more_objects_than_a_page_of_a_listing(s3_server, bucket, key, puller, target):
    client = s3_server.store.client()
    with ThreadPoolExecutor(8) as pool:
        for number in range(1_001):
            pool.submit(client.put_object, Bucket=bucket, Key=f"m/{number}", Body=b"x")
    assert (await puller.pull(request("m"), target)).files == 1_001


async def test_pull_more_objects_than_a_model_can_have_is_refused(
    s3_server, bucket, key, target, tmp_path
):
    for number in range(3):
        s3_server.put(bucket, f"m/{number}", b"x")
    keys = StorageKeys(tmp_path / "config")
    with closing(S3Stores(most_objects=3)) as stores:
        assert (await Puller(keys, stores.open).pull(request("m"), target)).files == 3
    with closing(S3Stores(most_objects=2)) as stores, pytest.raises(TooManyObjects, match="than 2"):
        await Puller(keys, stores.open).pull(request("m"), target)


async def test_pull_twelve_objects_ten_of_them_at_once(
    s3_server, bucket, proxy, key, puller, target
):
    for number in range(12):
        s3_server.put(bucket, f"m/{number}", bytes([number]) * 1000)
    key(endpoint_url=proxy.endpoint_url)
    proxy.hold("/m/")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        pull = group.create_task(puller.pull(request("m"), target))
        await asyncio.to_thread(proxy.wait_for_held, 10)
        assert sum(proxy.gets(f"m/{number}") for number in range(12)) == 10
        proxy.release()
    assert pull.result().size_bytes == 12_000
    assert [proxy.gets(f"{bucket}/m/{number}") for number in range(12)] == [1] * 12


async def test_pull_changed_key_is_used_by_the_next_pull(s3_server, bucket, key, puller, target):
    s3_server.put(bucket, "m", b"m")
    key(secret_access_key="wrong")
    assert isinstance(await refused(puller, request("m"), target), AccessRefused)
    key()
    assert (await puller.pull(request("m"), target)).files == 1


@pytest.mark.parametrize(
    ("changed", "kind", "reason"),
    [
        (
            {"secret_access_key": "wrong-secret"},
            AccessRefused,
            "credentials refused: secret_access_key does not fit access_key_id (storage key 'k')",
        ),
        (
            {"access_key_id": "wrong-id"},
            AccessRefused,
            "credentials refused: access_key_id is unknown (storage key 'k')",
        ),
        (
            {"access_key_id": None, "secret_access_key": None, "bucket": "closed"},
            AccessRefused,
            "access to bucket 'closed' denied without credentials (storage key 'k')",
        ),
        (
            {"bucket": "missing"},
            BucketNotFound,
            "bucket 'missing' does not exist (storage key 'k')",
        ),
        (
            {"bucket": "../escape"},
            BucketNotFound,
            "bucket '../escape' is no valid name (storage key 'k')",
        ),
        (
            {"default_bucket": ""},
            BucketNotFound,
            "storage key 'k' has no bucket and the Predictor names none",
        ),
    ],
)
async def test_pull_refused_by_the_store_says_why_and_shows_no_secret(
    s3_server, key, puller, target, changed, kind, reason
):
    key(**changed)
    error = await refused(puller, request("m"), target)
    assert (type(error), error.reason) == (kind, reason)
    shown = "".join(traceback.format_exception(error)) + repr(error)
    secrets = ["wrong-secret", "wrong-id", s3_server.store.access_key_id]
    assert not any(secret in shown for secret in [*secrets, s3_server.store.secret_access_key])


async def test_pull_missing_object_names_path_and_bucket(bucket, key, puller, target):
    error = await refused(puller, request("sklearn/nothing.joblib"), target)
    assert isinstance(error, ObjectNotFound)
    assert error.reason == f"no object or prefix 'sklearn/nothing.joblib' in bucket '{bucket}'"


async def test_pull_folder_mark_alone_is_no_model(s3_server, bucket, key, puller, target):
    s3_server.put(bucket, "m/", b"")
    assert isinstance(await refused(puller, request("m"), target), ObjectNotFound)


async def test_pull_dead_endpoint_cannot_be_reached(key, puller, target):
    with socket.socket() as unheard:  # bound, never listening: nobody else gets the port
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        key(endpoint_url=url)
        error = await refused(puller, request("m"), target)
    assert isinstance(error, StoreUnreachable)
    assert error.reason == f"endpoint {url} cannot be reached"


async def test_pull_endpoint_that_is_no_s3_is_an_error_of_ours(s3_server, key, puller, target):
    key(endpoint_url=f"{s3_server.store.endpoint_url}/deeper/still")
    error = await refused(puller, request("m"), target)
    assert isinstance(error, StoreFailed | StoreUnreachable | BucketNotFound | AccessRefused)


@pytest.mark.parametrize("lie", [b"../", b"./.", b"//x", b"%5C", b"%0A", b"%00"])
async def test_pull_hostile_name_in_a_listing_is_refused(
    s3_server, bucket, proxy, key, puller, target, lie
):
    s3_server.put(bucket, "m/abcxyz", b"x")
    key(endpoint_url=proxy.endpoint_url)
    proxy.replace_in_listings(b"m/abcxyz", b"m/" + lie + b"xyz")
    error = await refused(puller, request("m"), target)
    assert isinstance(error, UnsafeName)
    assert proxy.gets("m/abcxyz") == 0


async def test_pull_control_character_that_the_store_itself_took_is_refused(
    s3_server, bucket, key, puller, target
):
    s3_server.put(bucket, "m/a\x01b", b"x")
    error = await refused(puller, request("m"), target)
    assert isinstance(error, UnsafeName)
    assert r"'m/a\x01b'" in error.reason


async def test_pull_damaged_bytes_are_read_again(s3_server, bucket, proxy, key, puller, target):
    content = os.urandom(100_000)
    s3_server.put(bucket, "m", content)
    key(endpoint_url=proxy.endpoint_url)
    proxy.spoil("/m", "flip", times=2)
    pulled = await puller.pull(request("m"), target)
    assert pulled.path.read_bytes() == content
    assert proxy.gets("m") == 3


@pytest.mark.parametrize(
    ("how", "what"), [("flip", "its MD5 is not the store's"), ("cut", "the connection ended")]
)
async def test_pull_bytes_that_stay_broken_are_an_error(
    s3_server, bucket, proxy, key, puller, target, how, what
):
    s3_server.put(bucket, "m", os.urandom(100_000))
    key(endpoint_url=proxy.endpoint_url)
    proxy.spoil("/m", how)
    error = await refused(puller, request("m"), target)
    assert isinstance(error, ReadBroken)
    assert what in error.reason


async def test_pull_cut_off_goes_on_where_it_stopped_if_the_object_is_the_same(
    s3_server, bucket, proxy, key, puller, target
):
    content = os.urandom(1_000_000)
    s3_server.put(bucket, "m", content)
    key(endpoint_url=proxy.endpoint_url)
    proxy.spoil("/m", "cut", times=2)
    seen = list[int]()
    pulled = await puller.pull(request("m"), target, lambda done, total: seen.append(done))
    assert pulled.path.read_bytes() == content
    assert proxy.headers("m", "range") == ["", "bytes=500000-", "bytes=750000-"]
    assert set(proxy.headers("m", "if-match")) == {f'"{md5(content)}"'}
    assert seen == sorted(seen)


async def test_pull_cut_off_is_checked_as_a_whole(s3_server, bucket, proxy, key, puller, target):
    content = os.urandom(100_000)
    s3_server.put(bucket, "m", content)
    key(endpoint_url=proxy.endpoint_url)
    proxy.spoil("/m", "cut", times=1)
    # The rest comes damaged, and so all of it is read again.
    proxy.when_cut(lambda: proxy.spoil("/m", "flip", times=1))
    pulled = await puller.pull(request("m"), target)
    assert pulled.path.read_bytes() == content
    assert proxy.headers("m", "range") == ["", "bytes=50000-", ""]


@pytest.mark.parametrize("is_removed", [False, True])
async def test_pull_cut_off_whose_object_changes_is_not_patched_together(
    s3_server, bucket, proxy, key, puller, target, is_removed
):
    s3_server.put(bucket, "m", b"a" * 100_000)
    key(endpoint_url=proxy.endpoint_url)
    proxy.spoil("/m", "cut", times=1)
    client = s3_server.store.client()
    proxy.when_cut(
        lambda: (
            client.delete_object(Bucket=bucket, Key="m")
            if is_removed
            else client.put_object(Bucket=bucket, Key="m", Body=b"b" * 100_000)
        )
    )
    error = await refused(puller, request("m"), target)
    assert isinstance(error, ObjectChanged)
    assert error.reason == f"object 'm' in bucket '{bucket}' changed while it was pulled"
    assert proxy.headers("m", "range") == ["", "bytes=50000-"]


async def test_pull_store_that_ignores_the_range_is_read_anew(
    s3_server, bucket, proxy, key, puller, target
):
    content = os.urandom(100_000)
    s3_server.put(bucket, "m", content)
    s3_server.make_public(bucket)  # a signature has the range in it
    key(endpoint_url=proxy.endpoint_url, access_key_id=None, secret_access_key=None)
    proxy.spoil("/m", "cut", times=1)
    proxy.ignore_ranges()
    assert (await puller.pull(request("m"), target)).path.read_bytes() == content
    assert proxy.headers("m", "range") == ["", "bytes=50000-", ""]


async def test_pull_store_that_falls_silent_is_asked_again_for_the_rest(
    s3_server, bucket, proxy, key, target, tmp_path
):
    content = os.urandom(1_000_000)
    s3_server.put(bucket, "m", content)
    key(endpoint_url=proxy.endpoint_url)
    proxy.spoil("/m", "cut", times=1)
    goes_on = threading.Event()
    proxy.when_cut(lambda: goes_on.wait(DEADLINE_S))  # half of it, and then nothing
    with closing(S3Stores(S3Clients(read_timeout_s=0.3))) as stores:
        puller = Puller(StorageKeys(tmp_path / "config"), stores.open)
        try:
            pulled = await puller.pull(request("m"), target)
        finally:
            goes_on.set()
    assert pulled.path.read_bytes() == content
    # A chunk that had begun to come is lost.
    assert proxy.headers("m", "range") == ["", f"bytes={CHUNK_BYTES}-"]


async def test_pull_store_that_stays_silent_is_told_of(
    s3_server, bucket, proxy, key, target, tmp_path
):
    s3_server.put(bucket, "m", b"m")
    key(endpoint_url=proxy.endpoint_url)
    proxy.hold("/m")
    with closing(S3Stores(S3Clients(read_timeout_s=0.3))) as stores:
        puller = Puller(StorageKeys(tmp_path / "config"), stores.open, pauses_s=(0,))
        error = await refused(puller, request("m"), target)
    assert error.reason == "object 'm' came broken: the store stopped sending"
    assert proxy.gets("m") == 2


@pytest.mark.parametrize(("times", "is_pulled"), [(1, True), (2, False)])
async def test_pull_listing_without_an_answer_is_asked_for_once_more(
    s3_server, bucket, proxy, key, puller, target, times, is_pulled
):
    s3_server.put(bucket, "m", b"m")
    key(endpoint_url=proxy.endpoint_url)
    proxy.drop_listings(times)
    if is_pulled:
        assert (await puller.pull(request("m"), target)).files == 1
    else:
        assert isinstance(await refused(puller, request("m"), target), StoreUnreachable)


async def test_pull_opens_the_store_of_the_keys_type(s3_server, bucket, key, target, tmp_path):
    s3_server.put(bucket, "m", b"m")
    with closing(Stores()) as stores:
        puller = Puller(StorageKeys(tmp_path / "config"), stores.open)
        assert (await puller.pull(request("m"), target)).files == 1


async def test_pull_store_that_never_sends_the_rest_is_told_of(
    s3_server, bucket, proxy, key, puller, target
):
    s3_server.put(bucket, "m", b"m" * 1000)
    s3_server.make_public(bucket)
    key(endpoint_url=proxy.endpoint_url, access_key_id=None, secret_access_key=None)
    proxy.spoil("/m", "cut")
    proxy.ignore_ranges()
    error = await refused(puller, request("m"), target)
    assert error.reason == "object 'm' came broken: the store does not send the rest of it"


async def test_pull_checks_the_additional_checksum_that_the_store_has(
    s3_server, bucket, proxy, key, puller, target
):
    client = s3_server.store.client()
    client.put_object(Bucket=bucket, Key="m", Body=b"m" * 1000, ChecksumAlgorithm="SHA256")
    key(endpoint_url=proxy.endpoint_url)
    assert (await puller.pull(request("m"), target)).size_bytes == 1000
    assert proxy.headers("m", "x-amz-checksum-mode") == ["ENABLED"]
    proxy.spoil("/m", "flip")
    with pytest.raises(ReadBroken, match="object 'm' came broken: its SHA256 is not the store's"):
        await puller.pull(request("m"), target)


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
def test_additional_checksum_is_computed_as_the_store_does(s3_server, bucket, algorithm):
    client = s3_server.store.client()
    client.put_object(Bucket=bucket, Key="m", Body=b"a model", ChecksumAlgorithm=algorithm)
    headers = client.get_object(Bucket=bucket, Key="m")["ResponseMetadata"]["HTTPHeaders"]
    found = strongest("", headers)
    assert found is not None
    assert found.algorithm == algorithm
    running = found.running()
    running.update(b"a model")
    assert running.digest() == found.digest


async def test_pull_without_credentials_is_not_signed_and_gets_what_is_public(
    s3_server, bucket, proxy, key, puller, target
):
    s3_server.put(bucket, "m", b"public")
    s3_server.make_public(bucket)
    anonymous = {"access_key_id": None, "secret_access_key": None}
    key(endpoint_url=proxy.endpoint_url, **anonymous)
    assert (await puller.pull(request("m"), target)).path.read_bytes() == b"public"
    assert proxy.headers("m", "authorization") == [""]


async def test_pull_looks_at_nothing_that_the_machine_has_set_for_aws(
    s3_server, bucket, key, target, tmp_path, monkeypatch
):
    s3_server.put(bucket, "m", b"m")
    write_broken_home(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in BROKEN_AWS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.store.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.store.secret_access_key)
    with closing(S3Stores()) as stores:
        puller = Puller(StorageKeys(tmp_path / "config"), stores.open)
        assert (await puller.pull(request("m"), target)).size_bytes == 1
        key(access_key_id=None, secret_access_key=None)
        with pytest.raises(AccessRefused, match="denied without credentials"):
            await puller.pull(request("m"), target)


def test_clients_look_at_nothing_below_the_home_of_the_machine(tmp_path):
    write_broken_home(tmp_path)
    program = """
from mesh.storage.s3_clients import isolated_session
isolated_session().client("s3", region_name="r", endpoint_url="http://localhost")
"""
    # A program of its own, since boto3 notes the home when it is imported.
    subprocess.run([sys.executable, "-c", program], env={"HOME": str(tmp_path)}, check=True)


def write_broken_home(home: Path) -> None:
    models = home / ".aws" / "models"
    (models / "s3" / "2006-03-01").mkdir(parents=True)
    for name in ("config", "credentials"):
        (home / ".aws" / name).write_text("[broken")
    for name in ("endpoints.json", "s3/2006-03-01/service-2.json"):
        (models / name).write_text("broken")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


async def test_pull_object_of_parts_has_no_md5_to_check(s3_server, bucket, key, puller, target):
    client = s3_server.store.client()
    started = client.create_multipart_upload(Bucket=bucket, Key="m")
    call = {"Bucket": bucket, "Key": "m", "UploadId": started["UploadId"]}
    parts = [b"a" * 5 * 1024 * 1024, b"b"]
    done = [
        {"PartNumber": n, "ETag": client.upload_part(**call, PartNumber=n, Body=part)["ETag"]}
        for n, part in enumerate(parts, 1)
    ]
    client.complete_multipart_upload(**call, MultipartUpload={"Parts": done})
    pulled = await puller.pull(request("m"), target)
    digest = hashlib.sha256(pulled.path.read_bytes()).digest()
    assert digest == hashlib.sha256(b"".join(parts)).digest()


@pytest.mark.parametrize("is_removed", [False, True])
async def test_pull_object_that_changes_while_it_is_pulled_is_an_error(
    s3_server, bucket, proxy, key, puller, target, is_removed
):
    s3_server.put(bucket, "m", b"before")
    key(endpoint_url=proxy.endpoint_url)
    proxy.hold("/m")
    change = changed_when_held(s3_server, bucket, proxy, is_removed)
    with pytest.raises(ObjectChanged, match=r"object 'm' in bucket .* changed while it was pulled"):
        await both(puller.pull(request("m"), target), change)
    assert list(target.parent.iterdir()) == []


async def both(pull, change) -> None:
    """Runs both; the pull's error comes out as it is."""
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(change)
            group.create_task(pull)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def changed_when_held(s3_server, bucket, proxy, is_removed) -> None:
    await asyncio.to_thread(proxy.wait_for_held)
    if is_removed:
        s3_server.store.client().delete_object(Bucket=bucket, Key="m")
    else:
        s3_server.put(bucket, "m", b"after!")
    proxy.release()


async def test_pull_cancelled_at_the_gate_leaves_nothing(
    s3_server, bucket, proxy, key, puller, target
):
    for number in range(12):
        s3_server.put(bucket, f"m/{number}", b"x" * 1000)
    key(endpoint_url=proxy.endpoint_url)
    proxy.hold("/m/7")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        pull = group.create_task(puller.pull(request("m"), target))
        await asyncio.to_thread(proxy.wait_for_held)
        assert list(target.parent.iterdir()) != []
        pull.cancel()
    assert pull.cancelled()
    assert list(target.parent.iterdir()) == []
