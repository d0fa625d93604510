"""Schema and model of one mind on documents of all sorts, by whatever they are put together.

Where they differ, it is by what a schema cannot say, and no schema refuses what a model takes.
"""

import re
from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.wire.documents import InvalidManifest
from mesh.wire.schemas import schema
from router.cli.validate import CHECKS
from tests.support.json_schema import problems
from tests.support.runtimes import mlserver_container, mlserver_runtime
from tests.support.strategies import texts

# What no keyword of JSON Schema can say.
UNSAID = re.compile(
    r"spec\.minCopies: must not be greater than spec\.maxCopies"
    r"|spec\.containers\[\d+\]\.name: given twice"
    r"|spec\.containers: none is named as spec\.builtInAdapter\.serverType"
    r"|spec\.containers\S+: '\S+' is too large"
    r"|spec\.containers\S+: '\S+e[+-]?\d{3}' is no quantity such as 500m, 2 or 1Gi"
)
SCHEMAS = {kind: schema(kind.lower()) for kind in CHECKS}
some = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
WRONG: st.SearchStrategy[Any] = st.sampled_from([True, 7, -1, "", [], {}, [""], {"a": 1}])
WORDS = st.sampled_from(["k", "a/b", "..", ".", "..a", "a\n", "default_s3", "sklearn"]) | texts()
NUMBERS = st.integers(-1, 2**31)
QUANTITIES = (
    st.sampled_from(["1", "1Gi", ".5", "-0", "-1", "1e3", "1Ki\n", "1E", "1Eii", "", "5K", "+1m"])
    | st.integers(-2, 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts()
)
ENDPOINTS = st.one_of(
    st.integers(-1, 70_000).map(lambda port: f"port:{port}"),
    st.sampled_from(["unix:/a", "unix:a", "port:1\n", "port:01", "unix:/", "a"]),
)
URIS = st.sampled_from(
    [
        *("s3://b/a", "s3://b/", "s3:///a", "s3://b/a\n", "s3://b/\n", "http://b/a", "s3://b//a"),
        *("file:///a", "file://a", "file:///", "file:////a", "file:///\n"),
    ]
)


def mapping(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields; now and then a wrong value, or a field that there is none of."""
    mixed = {name: st.one_of(value, value, value, value, WRONG) for name, value in fields.items()}
    plain = st.fixed_dictionaries({}, optional=fields)
    return st.one_of(plain, plain, st.fixed_dictionaries({}, optional=mixed | {"nme": WRONG}))


STORAGE = mapping(
    s3=mapping(secretKey=WORDS, bucket=WORDS),
    key=WORDS,
    path=WORDS,
    schemaPath=WORDS,
    parameters=st.dictionaries(st.sampled_from(["type", "bucket", "x"]), WORDS, max_size=2),
)
SPECS = mapping(
    path=WORDS,
    schemaPath=WORDS,
    storage=STORAGE,
    storageUri=URIS,
    runtime=mapping(name=WORDS),
    minCopies=NUMBERS,
    maxCopies=NUMBERS,
)
TYPES = st.one_of(st.just({"name": "sklearn"}), mapping(name=WORDS, version=WORDS))
NAMES = st.sampled_from(["x", "x.y", "x-", "X", "a" * 63, "a" * 64, "x\n", ""])


def predictor(spec: dict[str, Any], name: str = "x") -> dict[str, Any]:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": name},
        "spec": {"modelType": {"name": "sklearn"}, **spec},
    }


@given(SPECS, TYPES, NAMES)
@some
def test_schema_and_model_agree_on_any_predictor(spec, model_type, name):
    check(predictor({"modelType": model_type, **spec}, name))


PLACES: dict[str, Any] = {"path": "a", "schemaPath": "s", "storageUri": "s3://b/a"}
FILE = {"storageUri": "file:///a"}
STORAGE_PLACES: dict[str, Any] = {
    "s3": {"secretKey": "k"},
    "key": "k",
    "path": "a",
    "schemaPath": "s",
    "parameters": {"type": "s3"},
}


def parts(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every choice of its fields."""
    chosen = chain.from_iterable(combinations(whole, count) for count in range(len(whole) + 1))
    return ({name: whole[name] for name in names} for names in chosen)


def test_schema_and_model_agree_on_every_combination_of_storage_forms():
    with_bucket = STORAGE_PLACES | {"s3": {"secretKey": "k", "bucket": "b"}}
    storages = [*parts(STORAGE_PLACES), *(one for one in parts(with_bucket) if "s3" in one)]
    valid = 0
    for places in (*parts(PLACES), *(one | FILE for one in parts(PLACES))):
        for storage in ({}, *({"storage": storage} for storage in storages)):
            document = predictor(places | storage)
            check(document)
            valid += not parsed(document)
    assert valid > 30


CONTAINERS = mapping(
    name=WORDS,
    command=st.lists(WORDS, max_size=2),
    env=st.lists(mapping(name=WORDS, value=WORDS), max_size=2),
    ports=st.lists(mapping(containerPort=st.integers(-1, 70_000), name=WORDS), max_size=2),
    resources=mapping(limits=st.dictionaries(st.just("memory"), QUANTITIES)),
    workingDir=WORDS,
)
LISTED = st.lists(mapping(name=WORDS, version=WORDS, autoSelect=st.booleans()), max_size=2)
FIELDS = mapping(
    containers=st.lists(CONTAINERS.map(lambda fields: mlserver_container(**fields)), max_size=2),
    supportedModelTypes=LISTED,
    supportedModelFormats=LISTED,
    multiModel=st.booleans(),
    grpcEndpoint=ENDPOINTS,
    grpcDataEndpoint=ENDPOINTS,
    replicas=NUMBERS,
    storageHelper=mapping(disabled=st.booleans()),
)


@given(FIELDS)
@some
def test_schema_and_model_agree_on_any_runtime(fields):
    check(mlserver_runtime(**fields))


@given(QUANTITIES)
def test_schema_and_model_agree_on_any_quantity(quantity):
    limits = {"limits": {"memory": quantity}}
    check(mlserver_runtime(containers=[mlserver_container(resources=limits)]))


def check(document: dict[str, Any]) -> None:
    refused = problems(SCHEMAS[document["kind"]], document)
    found = parsed(document)
    if refused:
        assert found, refused
    else:
        assert [problem for problem in found if UNSAID.fullmatch(problem) is None] == []


def parsed(document: dict[str, Any]) -> tuple[str, ...]:
    """What `validate` has against a document."""
    try:
        CHECKS[document["kind"]](document)
    except InvalidManifest as error:
        return error.problems
    return ()
