"""The optional policy in deploy/ is that which is made of the rules."""

from pathlib import Path

import yaml

from mesh.controller.admission import FILE, binding, policy, text

FOLDER = Path(__file__).parents[2] / "deploy" / "validation"


def test_the_file_is_the_one_that_is_made():
    made = "run python -m mesh.controller.admission deploy/validation"
    assert (FOLDER / FILE).read_text() == text(), made
    assert yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"] == [FILE]


def test_binding_names_the_policy():
    assert binding()["spec"]["policyName"] == policy()["metadata"]["name"]
