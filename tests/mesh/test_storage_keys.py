"""storage-config: what an entry must have, what is told of a bad one, and what is noticed."""

import asyncio
import json
import os
import traceback
from pathlib import Path

import pytest

from mesh.storage.accounts import LocalAccount, S3Account
from mesh.storage.keys import StorageKeys
from mesh.storage.port import KeyInvalid, KeyNotFound

ENTRY = {
    "type": "s3",
    "access_key_id": "AKIDEXAMPLE",
    "secret_access_key": "hush-hush-hush",
    "endpoint_url": "http://minio:9000",
    "region": "us-south",
    "default_bucket": "older",
}
SECRETS = ("AKIDEXAMPLE", "hush-hush-hush")


def written(folder: Path, key: str = "k", **changed: object) -> StorageKeys:
    fields = {name: value for name, value in {**ENTRY, **changed}.items() if value is not None}
    (folder / key).write_text(json.dumps(fields))
    return StorageKeys(folder)


def problems_of(keys: StorageKeys, key: str = "k", **parameters: str) -> str:
    """The error's text; also sees to it that no secret is anywhere in its traceback."""
    with pytest.raises(KeyInvalid) as caught:
        keys.get(key, parameters)
    assert not any(secret in "".join(told(caught.value)) for secret in SECRETS)
    return caught.value.reason


def told(error: BaseException) -> list[str]:
    """All that a log may show of an error, the errors behind it too."""
    texts = [*traceback.format_exception(error), repr(error)]
    seen = error.__context__
    while seen is not None:
        texts += [repr(seen), str(seen)]
        seen = seen.__context__
    return texts


def test_get_entry_of_the_documentation_is_read(tmp_path):
    account = written(tmp_path).get("k")
    assert account.endpoint_url == "http://minio:9000"
    assert account.secret_access_key.get_secret_value() == "hush-hush-hush"
    assert (account.region, account.bucket_or("")) == ("us-south", "older")


def test_get_bucket_wins_over_default_bucket_and_a_wanted_one_over_both(tmp_path):
    account = written(tmp_path, bucket="newer").get("k")
    assert account.bucket_or("") == "newer"
    assert account.bucket_or("wanted") == "wanted"


def test_get_without_region_takes_us_east_1(tmp_path):
    assert written(tmp_path, region=None).get("k").region == "us-east-1"


def test_get_strips_the_line_end_that_echo_left(tmp_path):
    account = written(tmp_path, secret_access_key="hush-hush-hush\n").get("k")
    assert account.secret_access_key.get_secret_value() == "hush-hush-hush"


def test_get_reads_the_file_as_it_is_now(tmp_path):
    keys = written(tmp_path)
    before = keys.get("k")
    written(tmp_path, secret_access_key="another")
    assert keys.get("k") != before


def test_get_follows_the_links_of_a_mounted_secret(tmp_path):
    (tmp_path / "..2026").mkdir()
    written(tmp_path / "..2026")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "k").symlink_to("..data/k")
    assert StorageKeys(tmp_path).get("k").region == "us-south"


def test_get_keeps_the_suffix_as_part_of_the_key(tmp_path):
    keys = written(tmp_path, "k.json")
    assert keys.get("k.json")
    with pytest.raises(KeyNotFound):
        keys.get("k")


@pytest.mark.parametrize(
    "key",
    ["nope", ".", "..", "../k", "sub/k", "/etc/hostname", "k\0", ".hidden", "sub", "x" * 999],
)
def test_get_what_is_no_plain_file_of_the_folder_is_not_found(tmp_path, key):
    folder = tmp_path / "config"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "sub"):
        written(place)
    written(folder, ".hidden")
    with pytest.raises(KeyNotFound) as caught:
        StorageKeys(folder).get(key)
    assert caught.value.reason == f"Storage secretKey not found: {key}"


def test_get_in_a_missing_folder_is_not_found(tmp_path):
    with pytest.raises(KeyNotFound):
        StorageKeys(tmp_path / "later").get("k")


def test_get_bad_entry_names_all_problems_and_no_value(tmp_path):
    keys = written(tmp_path, secret_access_key=["hush-hush-hush"], endpoint_url=None, region=7)
    text = problems_of(keys)
    assert text.startswith("storage key 'k' is not usable: ")
    assert all(name in text for name in ("secret_access_key: ", "endpoint_url: ", "region: "))


@pytest.mark.parametrize(
    "url", ["minio:9000", "ftp://minio", "http://", "http://user:hush-hush-hush@minio", ""]
)
def test_get_bad_endpoint_is_a_problem_of_its_field(tmp_path, url):
    assert "endpoint_url: " in problems_of(written(tmp_path, endpoint_url=url))


def test_get_other_type_says_what_is_known(tmp_path):
    text = problems_of(written(tmp_path, type="hush-hush-hush"))
    assert text.endswith("type: unknown, it is one of local, s3")


def test_get_without_type_says_what_is_known(tmp_path):
    text = problems_of(written(tmp_path, type=None))
    assert text.endswith("type: required, it is one of local, s3")


def test_get_type_may_come_from_the_parameters(tmp_path):
    assert isinstance(written(tmp_path, type=None).get("k", {"type": "s3"}), S3Account)


@pytest.mark.parametrize(("parameters", "key"), [({}, "default"), ({"type": "s3"}, "default_s3")])
def test_get_no_key_means_the_default_one_of_the_type(tmp_path, parameters, key):
    keys = written(tmp_path, key, region=key)
    assert keys.get("", parameters).region == key
    (tmp_path / key).unlink()
    with pytest.raises(KeyNotFound, match=f"Storage secretKey not found: {key}"):
        keys.get("", parameters)


def test_get_without_credentials_is_anonymous(tmp_path):
    account = written(tmp_path, access_key_id=None, secret_access_key=None).get("k")
    assert account.is_anonymous
    assert not written(tmp_path).get("k").is_anonymous


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"secret_access_key": None}, "secret_access_key: required, since there is an access_key"),
        ({"access_key_id": None}, "secret_access_key: needs an access_key_id; without both,"),
        ({"access_key_id": ""}, "access_key_id: "),
        ({"secret_access_key": ""}, "secret_access_key: "),
        ({"access_key_id": "", "secret_access_key": ""}, "secret_access_key: "),
    ],
)
def test_get_half_of_the_credentials_is_a_problem(tmp_path, changed, problem):
    assert problem in problems_of(written(tmp_path, **changed))


def local(folder: Path, root: str) -> StorageKeys:
    (folder / "k").write_text(json.dumps({"type": "local", "root": root}))
    return StorageKeys(folder)


def test_get_local_entry_is_its_root(tmp_path):
    assert local(tmp_path, "/models").get("k") == LocalAccount(type="local", root="/models")


@pytest.mark.parametrize("root", ["", "models", "../models", "/mo\ndels", "/\0"])
def test_get_local_root_that_is_no_absolute_path_is_a_problem(tmp_path, root):
    assert "root: must be an absolute path" in problems_of(local(tmp_path, root))


@pytest.mark.parametrize("begin", ["", "-----BEGIN CERTIFICATE-----\n"])
def test_get_certificate_that_is_none_is_a_problem(tmp_path, begin):
    text = problems_of(written(tmp_path, certificate=f"{begin}hush-hush-hush"))
    assert "certificate: is not a PEM certificate" in text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"secret_access_key": "hush-hush-hush", }', "not JSON"),
        (b'["hush-hush-hush"]', "not a JSON object"),
        (b'{"access_key_id": "AKIDEXAMPLE\xff"}', "not UTF-8"),
        (b"", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_get_file_that_is_no_json_says_so(tmp_path, content, problem):
    (tmp_path / "k").write_bytes(content)
    assert problem in problems_of(StorageKeys(tmp_path))


def test_get_parameters_override_bucket_and_region(tmp_path):
    account = written(tmp_path).get("k", {"bucket": "mine", "region": "eu-de"})
    assert (account.bucket_or(""), account.region) == ("mine", "eu-de")


def test_get_parameters_may_not_send_the_credentials_elsewhere(tmp_path):
    text = problems_of(written(tmp_path), endpoint_url="http://evil")
    assert "parameters.endpoint_url: cannot be set here" in text


def test_account_shows_no_secret(tmp_path):
    account = written(tmp_path).get("k")
    shown = f"{account!r} {account} {account.model_dump_json()} {account.model_dump()}"
    assert not any(secret in shown for secret in SECRETS)


def test_account_with_equal_content_is_equal(tmp_path):
    assert {written(tmp_path).get("k"), S3Account.model_validate(ENTRY)} == {
        S3Account.model_validate(ENTRY)
    }


async def test_changes_added_changed_and_removed_are_each_seen_within_two_seconds(tmp_path):
    keys = written(tmp_path, "old")
    changes = keys.changes()
    steps = (
        lambda: written(tmp_path, "new"),
        lambda: written(tmp_path, "old", region="eu-de"),
        lambda: (tmp_path / "new").unlink(),
    )
    for step, key in zip(steps, ("new", "old", "new"), strict=True):
        step()
        async with asyncio.timeout(2):
            assert await anext(changes) == key


async def test_changes_same_content_with_a_new_date_is_no_change(tmp_path):
    keys = written(tmp_path)
    changes = keys.changes()
    os.utime(tmp_path / "k", (1, 1))
    written(tmp_path, "marker")
    async with asyncio.timeout(2):
        assert await anext(changes) == "marker"


async def test_changes_folder_that_comes_later_and_swaps_like_kubelets(tmp_path):
    folder = tmp_path / "later"
    changes = StorageKeys(folder).changes()
    for version, region in (("..1", "one"), ("..2", "two")):
        (folder / version).mkdir(parents=True)
        written(folder / version, region=region)
        (folder / "..new").symlink_to(version)
        (folder / "..new").replace(folder / "..data")
        if not (folder / "k").exists():
            (folder / "k").symlink_to("..data/k")
        async with asyncio.timeout(2):
            assert await anext(changes) == "k"
