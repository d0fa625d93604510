"""JSON Schemas of the files that people write, for editors: draft 2020-12.

Made from the models that check the files. What a model says in code (patterns, which fields go
together) is said here a second time; tests hold both to the same verdicts. A schema refuses nothing
that a model takes but fields that are null. It cannot say that one number is at most another, that
names differ or that one is another, and how large a quantity with a suffix is.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from mesh.wire.manifests import (
    DNS_NAME,
    FILE,
    KEY_NAME,
    KEYED,
    MAX_NAME_CHARS,
    URI,
    PredictorManifest,
)
from mesh.wire.problems import PLAIN_NAME, Strict
from mesh.wire.runtime_manifest import ServingRuntimeManifest
from mesh.wire.schema_texts import TEXTS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: Mapping[str, type[Strict]] = {
    "predictor": PredictorManifest,
    "servingruntime": ServingRuntimeManifest,
}
PORT = "|".join(
    (
        "[1-9][0-9]{0,3}",
        "[1-5][0-9]{4}",
        "6[0-4][0-9]{3}",
        "65[0-4][0-9]{2}",
        "655[0-2][0-9]",
        "6553[0-5]",
    )
)
ENDPOINT = {"pattern": f"^(port:({PORT})$|unix:/)"}
DIGITS = r"([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})"
ZERO = DIGITS.replace("[0-9]", "0")
SUFFIX = r"([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?"
QUANTITY = {
    "anyOf": [
        {"type": "string", "pattern": f"^(\\+?{DIGITS}|-{ZERO}){SUFFIX}$"},
        {"type": "number", "minimum": 0, "maximum": 2**63 - 1},
    ]
}
KEY = {"pattern": f"^(?!\\.\\.|\\.$){KEY_NAME.pattern}$"}
TEXT = {"minLength": 1}
# By model and field: what validators say in code.
LIMITS: Mapping[str, Mapping[str, Any]] = {
    "Metadata.name": {"pattern": f"^{DNS_NAME.pattern}$", "maxLength": MAX_NAME_CHARS},
    "ModelTypeField.name": TEXT,
    "RuntimeField.name": TEXT,
    "S3.secretKey": KEY,
    "Storage.key": KEY,
    "Storage.path": TEXT,
    "Storage.parameters": {
        "properties": {"type": {"type": "string", "pattern": f"^{PLAIN_NAME.pattern}$"}}
    },
    "Storage.persistentVolumeClaim": {"not": {}},
    "Spec.path": TEXT,
    "Spec.storageUri": {"pattern": f"^{URI.pattern}"},
    "EnvVar.name": TEXT,
    "EnvText.name": TEXT,
    "Container.name": TEXT,
    "Container.image": TEXT,
    "Container.workingDir": TEXT,
    "SupportedType.name": TEXT,
    "BuiltInAdapter.serverType": TEXT,
    "ServingRuntimeFields.multiModel": {"const": True},
    "ServingRuntimeFields.containers": {"minItems": 1},
    "ServingRuntimeFields.grpcEndpoint": ENDPOINT,
    "ServingRuntimeFields.grpcDataEndpoint": ENDPOINT,
    "Resources.requests": {"additionalProperties": QUANTITY},
    "Resources.limits": {"additionalProperties": QUANTITY},
}


def _has(*path: str) -> dict[str, Any]:
    """That there is something at a path."""
    first, *rest = path
    inner = {"properties": {first: _has(*rest)}} if rest else {}
    return {"required": [first], **inner}


def _never(*both: tuple[str, ...]) -> dict[str, Any]:
    return {"not": {"allOf": [_has(*path) for path in both]}}


# By model: which fields go together.
RULES: Mapping[str, Mapping[str, Any]] = {
    "Spec": {
        "anyOf": [
            _has("storageUri"),
            {
                **_has("storage"),
                "properties": {"storage": {"minProperties": 1}},
                "anyOf": [_has("path"), _has("storage", "path")],
            },
        ],
        "allOf": [
            _never(("path",), ("storage", "path")),
            _never(("schemaPath",), ("storage", "schemaPath")),
            _never(("path",), ("storageUri",)),
            _never(("storage", "path"), ("storageUri",)),
            _never(("storage", "s3", "bucket"), ("storageUri",)),
            {
                "not": {
                    "allOf": [
                        _has("storageUri"),
                        {"properties": {"storageUri": {"pattern": f"^{FILE}"}}},
                        {"anyOf": [_has("storage", other) for other in KEYED]},
                    ]
                }
            },
        ],
    },
    "Storage": {
        "allOf": [
            _never(("s3",), (other,)) for other in ("key", "path", "schemaPath", "parameters")
        ],
    },
    "ServingRuntimeFields": {
        "oneOf": [
            {
                "required": [listed],
                "properties": {listed: {"minItems": 1}},
                "not": {"required": [other]},
            }
            for listed, other in (
                ("supportedModelTypes", "supportedModelFormats"),
                ("supportedModelFormats", "supportedModelTypes"),
            )
        ],
    },
}


def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind in MODELS."""
    made = MODELS[kind].model_json_schema(by_alias=True, schema_generator=_Generator)
    for name, model in {MODELS[kind].__name__: made, **made.get("$defs", {})}.items():
        _refine(name, model)
    return {"$schema": DIALECT, "title": kind, **made}


def _refine(name: str, model: dict[str, Any]) -> None:
    """What the generator cannot know; ours has no titles, since field names say the same."""
    model.pop("title", None)
    model.update(RULES.get(name, {}))
    for field, value in model["properties"].items():
        place = f"{name}.{field}"
        value.pop("title", None)
        value.pop("default", None)
        value.update(LIMITS.get(place, {}))
        value["description"] = TEXTS[place]


class _Generator(GenerateJsonSchema):
    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])
