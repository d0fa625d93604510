"""The definitions in deploy/ are those of the models, and have what a structural schema needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.controller.crds import KINDS, definition, texts

FOLDER = Path(__file__).parents[2] / "deploy" / "crds"


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from nodes(value, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def schema_of(kind: str) -> dict[str, Any]:
    version = definition(kind)["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def test_the_files_are_those_that_the_models_make():
    for name, text in texts().items():
        assert (FOLDER / name).read_text() == text, "run python -m mesh.controller.crds deploy/crds"
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(texts())


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_has_a_description_and_no_default(kind: str):
    spec = schema_of(kind)["properties"]["spec"]
    for path, node in nodes(spec, "spec"):
        assert "default" not in node, path
        assert path.endswith("[]") or node.get("description"), path


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_kept_in_leaves_alone(kind: str):
    for path, node in nodes(schema_of(kind), ""):
        if "x-kubernetes-preserve-unknown-fields" in node:
            assert path.count(".") > 1, path
            assert "properties" not in node, path
