"""What CRDs say beyond types: limits by field, and CEL rules by model, in the words of the CLI.

Every list and text that a rule looks at has a bound, as the API server reckons what a rule may
cost. Patterns are RE2's, which knows no look-ahead.
"""

from collections.abc import Mapping
from typing import Any

from mesh.wire.schemas import DIGITS, SUFFIX, ZERO

Json = dict[str, Any]

KEY_PATTERN = r"^[-._A-Za-z0-9]{1,253}$"
QUANTITY: Json = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": f"^(\\+?{DIGITS}|-{ZERO}){SUFFIX}$",
}
_NOT_DOTS = [
    {
        "rule": "self != '.' && !self.startsWith('..')",
        "message": "must consist of letters, digits, '-', '_' and '.'",
    }
]
_KEY = {"maxLength": 253, "x-kubernetes-validations": _NOT_DOTS}
_OBJECT = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_LIST = {"type": "array", "items": _OBJECT}
_NAMED = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

# By model and field.
LIMITS: Mapping[str, Json] = {
    "S3.secretKey": _KEY,
    "Storage.key": _KEY,
    "Storage.parameters[]": {"maxLength": 2048},
    "Storage.parameters": {
        "maxProperties": 64,
        "x-kubernetes-validations": [
            {
                "rule": "!('type' in self) || self['type'].matches('^[-_A-Za-z0-9]+$')",
                "message": "type must consist of letters, digits, '-' and '_'",
            }
        ],
    },
    "Storage.persistentVolumeClaim": _OBJECT,
    "Container.name": {"maxLength": 63},
    "BuiltInAdapter.serverType": {"maxLength": 63},
    "ServingRuntimeFields.containers": {"minItems": 1, "maxItems": 32, **_NAMED},
    "ServingRuntimeFields.supportedModelTypes": {"maxItems": 1024},
    "ServingRuntimeFields.supportedModelFormats": {"maxItems": 1024},
    "ServingRuntimeFields.volumes": _LIST,
    "ServingRuntimeFields.tolerations": _LIST,
    "ServingRuntimeFields.imagePullSecrets": _LIST,
    "ServingRuntimeFields.affinity": _OBJECT,
    "ServingRuntimeFields.nodeSelector": {
        "type": "object",
        "additionalProperties": {"type": "string"},
    },
}


def _rule(rule: str, message: str) -> Json:
    return {"rule": rule, "message": message}


def _not_both(one: str, other: str, names: str) -> Json:
    return _rule(f"!({one} && {other})", f"Only one of {names} can be specified")


_PATH = "has(self.path)"
_STORAGE_PATH = "(has(self.storage) && has(self.storage.path))"
_URI = "has(self.storageUri)"
_NEWER = "has(self.storage) && !has(self.storage.s3)"
_S3_ALONE = " || ".join(f"has(self.{name})" for name in ("key", "path", "schemaPath", "parameters"))
_KEYED = " || ".join(f"has(self.storage.{name})" for name in ("s3", "key", "parameters"))
_TYPES = "(has(self.supportedModelTypes) && size(self.supportedModelTypes) > 0)"
_FORMATS = "(has(self.supportedModelFormats) && size(self.supportedModelFormats) > 0)"

RULES: Mapping[str, list[Json]] = {
    "Spec": [
        _not_both(_PATH, _STORAGE_PATH, "spec.path and spec.storage.path"),
        _not_both(
            "has(self.schemaPath)",
            "(has(self.storage) && has(self.storage.schemaPath))",
            "spec.schemaPath and spec.storage.schemaPath",
        ),
        _not_both(_PATH, _URI, "spec.path and spec.storageUri"),
        _not_both(_STORAGE_PATH, _URI, "spec.storage.path and spec.storageUri"),
        _not_both(
            "(has(self.storage) && has(self.storage.s3) && has(self.storage.s3.bucket))",
            _URI,
            "spec.storage.s3.bucket and spec.storageUri",
        ),
        _rule(
            f"!({_URI} && self.storageUri.startsWith('file://') && has(self.storage) &&"
            f" ({_KEYED}))",
            "spec.storage: a file:// URI goes without s3, key, parameters",
        ),
        _rule(f"{_URI} || has(self.storage)", "spec.storage: required"),
        _rule(f"{_URI} || {_PATH} || {_STORAGE_PATH} || ({_NEWER})", "spec.path: required"),
        _rule(
            f"{_URI} || {_PATH} || {_STORAGE_PATH} || !({_NEWER})",
            "spec.storage.path: required",
        ),
        _rule(
            "!has(self.minCopies) || !has(self.maxCopies) || self.minCopies <= self.maxCopies",
            "spec.minCopies: must not be greater than spec.maxCopies",
        ),
    ],
    "Storage": [
        _rule(
            f"!has(self.s3) || !({_S3_ALONE})",
            "spec.storage.s3 cannot be specified with any other keys in spec.storage",
        ),
        _rule(
            "!has(self.persistentVolumeClaim)",
            "spec.storage.PersistentVolumeClaim is not supported",
        ),
    ],
    "ServingRuntimeFields": [
        _not_both(
            "has(self.supportedModelTypes)",
            "has(self.supportedModelFormats)",
            "spec.supportedModelTypes and spec.supportedModelFormats",
        ),
        _rule(f"{_TYPES} || {_FORMATS}", "spec.supportedModelTypes: required"),
        _rule(
            "!has(self.builtInAdapter) ||"
            " self.containers.exists(it, it.name == self.builtInAdapter.serverType)",
            "spec.containers: none is named as spec.builtInAdapter.serverType",
        ),
    ],
}
