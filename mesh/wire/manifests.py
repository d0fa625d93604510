"""The Predictor as its owner writes it, checked, and as what the core works with.

Two generations of the storage section are understood: `path` beside `storage.s3`, and `storage`
with `key`, `path` and `parameters`; and `storageUri`. The hash that names a backing model is made
of the spec as it was written: no default of ours may enter it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mesh.core.ids import PredictorName, RuntimeName, StorageKey, canonical_spec, spec_hash
from mesh.core.spec import LOCAL_FILES, ModelSource, ModelType, PredictorSpec
from mesh.wire.documents import InvalidManifest
from mesh.wire.problems import PLAIN_NAME, Strict, given, look_up, settled, validated

API_VERSION = "wmlserving.ai.ibm.com/v1"
# A backing model's id, which adds a hash, is a file name.
MAX_NAME_CHARS = 200
MAX_COPIES = 2**31 - 1
DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_NAME = re.compile(rf"{DNS_LABEL}(\.{DNS_LABEL})*")
KEY_NAME = re.compile(r"[-._A-Za-z0-9]{1,253}")
FILE = "file://"
# Of either scheme; nothing in it is decoded.
URI = re.compile(r"(s3://[^/]+/[\s\S]|file:///[^/])")
EXCLUSIVE = (
    (("spec", "path"), ("spec", "storage", "path")),
    (("spec", "schemaPath"), ("spec", "storage", "schemaPath")),
    (("spec", "path"), ("spec", "storageUri")),
    (("spec", "storage", "path"), ("spec", "storageUri")),
    (("spec", "storage", "s3", "bucket"), ("spec", "storageUri")),
)


# What says which storage key is meant, and how.
KEYED = ("s3", "key", "parameters")


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _dns_name(text: str) -> str:
    if len(text) > MAX_NAME_CHARS:
        raise ValueError(f"must have at most {MAX_NAME_CHARS} characters")
    if DNS_NAME.fullmatch(text) is None:
        raise ValueError("must consist of lower case letters, digits, '-' and '.', as a DNS name")
    return text


def _key_name(text: str) -> str:
    # The name of a file in the directory of storage keys.
    if KEY_NAME.fullmatch(text) is None or text == "." or text.startswith(".."):
        raise ValueError("must consist of letters, digits, '-', '_' and '.'")
    return text


def _parameters(parameters: dict[str, str]) -> dict[str, str]:
    # It becomes a part of a storage key's name.
    if PLAIN_NAME.fullmatch(parameters.get("type", "s3")) is None:
        raise ValueError("type must consist of letters, digits, '-' and '_'")
    return parameters


def _uri(text: str) -> str:
    if URI.match(text) is None:
        raise ValueError("must be s3://<bucket>/<path> or file:///<path>")
    return text


Text = Annotated[str, AfterValidator(_not_empty)]
Name = Annotated[str, AfterValidator(_dns_name)]
KeyName = Annotated[str, AfterValidator(_key_name)]
Copies = Annotated[int, Field(ge=0, le=MAX_COPIES)]


class Metadata(Strict):
    """A resource's name; what a server adds is taken too, so that its output can be applied."""

    name: Name
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: Any = None
    generation: Any = None
    resource_version: Any = None
    uid: Any = None
    managed_fields: Any = None
    finalizers: Any = None
    owner_references: Any = None


class ModelTypeField(Strict):
    name: Text
    version: str | None = None


class S3(Strict):
    secret_key: KeyName
    bucket: str | None = None


class Storage(Strict):
    s3: S3 | None = None
    key: KeyName | None = None
    path: Text | None = None
    schema_path: str | None = None
    parameters: Annotated[dict[str, str], AfterValidator(_parameters)] | None = None
    # Known, to be refused in the words of the documentation.
    persistent_volume_claim: Any = None


class RuntimeField(Strict):
    name: Text


class Spec(Strict):
    model_type: ModelTypeField
    path: Text | None = None
    schema_path: str | None = None
    storage: Storage | None = None
    storage_uri: Annotated[str, AfterValidator(_uri)] | None = None
    runtime: RuntimeField | None = None
    min_copies: Copies | None = None
    max_copies: Copies | None = None


class PredictorManifest(Strict):
    """A Predictor's file."""

    api_version: Literal["wmlserving.ai.ibm.com/v1"]
    kind: Literal["Predictor"]
    metadata: Metadata
    spec: Spec
    status: Any = None


def parse_predictor(document: object) -> PredictorSpec:
    """A Predictor from a document; raises InvalidManifest with everything that is wrong with it."""
    manifest, problems = validated(PredictorManifest, document)
    spec = settled(manifest, problems + _conflicts(document)).spec
    written = spec.model_dump(by_alias=True, exclude_unset=True)
    try:
        digest = spec_hash(written)
    except UnicodeEncodeError as error:
        # Half a pair of code units, which JSON and YAML can escape but UTF-8 cannot hold.
        raise InvalidManifest(("spec: must be valid Unicode",)) from error
    return PredictorSpec(
        predictor_name(document),
        canonical_spec(written),
        digest,
        _source(spec),
        spec.min_copies or 0,
        spec.max_copies or 0,
    )


def predictor_name(document: object) -> PredictorName:
    """The name of a Predictor, whatever its spec; raises InvalidManifest where there is none."""
    if look_up(document, "kind") != "Predictor":
        raise InvalidManifest(("kind: must be Predictor",))
    name = look_up(document, "metadata", "name")
    if not isinstance(name, str):
        raise InvalidManifest(("metadata.name: required",))
    return PredictorName(name)


def _conflicts(document: object) -> list[str]:
    """What is wrong between fields, seen on the document, whatever else is wrong with it."""
    problems = [
        f"Only one of {'.'.join(one)} and {'.'.join(other)} can be specified"
        for one, other in EXCLUSIVE
        if given(document, *one) and given(document, *other)
    ]
    storage = look_up(document, "spec", "storage")
    if isinstance(storage, Mapping):
        # An older path beside it is the rule above, and has its own words.
        others = {"key", "path", "schemaPath", "parameters"}
        if given(storage, "s3") and any(given(storage, other) for other in others):
            problems.append(
                "spec.storage.s3 cannot be specified with any other keys in spec.storage"
            )
        if _is_file(look_up(document, "spec", "storageUri")) and any(
            given(storage, other) for other in KEYED
        ):
            problems.append(f"spec.storage: a file:// URI goes without {', '.join(KEYED)}")
        if "persistentVolumeClaim" in storage:
            problems.append("spec.storage.PersistentVolumeClaim is not supported")
    if isinstance(look_up(document, "spec"), Mapping):
        problems += _missing(document) + _copies(document)
    return problems


def _missing(document: object) -> list[str]:
    if given(document, "spec", "storageUri"):
        return []
    storage = look_up(document, "spec", "storage")
    missing = [] if storage else ["spec.storage: required"]
    if not given(document, "spec", "path") and not given(document, "spec", "storage", "path"):
        newer = isinstance(storage, Mapping) and bool(storage) and "s3" not in storage
        missing.append("spec.storage.path: required" if newer else "spec.path: required")
    return missing


def _copies(document: object) -> list[str]:
    least, most = (look_up(document, "spec", field) for field in ("minCopies", "maxCopies"))
    if isinstance(least, int) and isinstance(most, int) and least > most:
        return ["spec.minCopies: must not be greater than spec.maxCopies"]
    return []


def _source(spec: Spec) -> ModelSource:
    storage = spec.storage or Storage()
    parameters = dict(storage.parameters or {})
    path = spec.path or storage.path or ""
    bucket = (storage.s3 and storage.s3.bucket) or parameters.get("bucket", "")
    kind = parameters.get("type", "")
    key = _storage_key(storage, kind)
    if _is_file(spec.storage_uri):
        key, path = LOCAL_FILES, str(spec.storage_uri).removeprefix(FILE)
    elif spec.storage_uri is not None:
        bucket, _, path = spec.storage_uri.removeprefix("s3://").partition("/")
        key = _storage_key(storage, "s3")
    return ModelSource(
        type=ModelType(spec.model_type.name, spec.model_type.version or ""),
        path=path,
        storage_key=key,
        bucket=bucket,
        schema_path=spec.schema_path or storage.schema_path or "",
        parameters=parameters,
        runtime=None if spec.runtime is None else RuntimeName(spec.runtime.name),
    )


def _storage_key(storage: Storage, kind: str) -> StorageKey:
    """The key that is named, else the default one of the storage's kind."""
    if storage.s3 is not None:
        return StorageKey(storage.s3.secret_key)
    return StorageKey(storage.key or (f"default_{kind}" if kind else "default"))


def _is_file(uri: object) -> bool:
    return isinstance(uri, str) and uri.startswith(FILE)
