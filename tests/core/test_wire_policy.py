"""The policy file: what it means, and what is wrong with it, with its path."""

import pytest

from mesh.core.demand import Thresholds
from mesh.core.placement import Constraint
from mesh.core.policy import DEFAULT
from mesh.wire.documents import InvalidManifest
from mesh.wire.policy import parse_policy


@pytest.mark.parametrize("document", [None, {}, {"copies": {}}, {"typeConstraints": {}}])
def test_what_is_left_out_is_as_ever(document):
    assert parse_policy(document) == DEFAULT


def test_constraints_are_labels_by_model_type():
    labels = {"required": ["gpu"], "preferred": ["fast", "near"]}
    policy = parse_policy({"typeConstraints": {"pytorch:1": labels, "_default": {}}})
    wanted = Constraint(frozenset({"gpu"}), frozenset({"fast", "near"}))
    assert policy.constraints == {"pytorch:1": wanted, "_default": Constraint()}


def test_every_threshold_has_its_field():
    fields = {
        "requestsPerSecond": 1,
        "inFlight": 2.5,
        "shrinkBelow": 0.5,
        "step": 0.25,
        "lookSeconds": 3,
        "keepSeconds": 4,
        "trimSeconds": 5,
        "againAfterSeconds": 6,
        "againWithinSeconds": 7,
    }
    wanted = Thresholds(1, 2.5, 0.5, 0.25, 3, 4, 5, 6, 7)
    assert parse_policy({"copies": fields}).thresholds == wanted


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"copies": {"requestsPerSecond": 0}}, "copies.requestsPerSecond: must be greater than 0"),
        ({"copies": {"step": 2}}, "copies.step: must be less than or equal to 1"),
        ({"copies": {"inflight": 2}}, "copies.inflight: unknown field"),
        ({"typeConstraints": {"a": {"required": "gpu"}}}, "typeConstraints.a.required: "),
        ([], "must be a mapping"),
    ],
)
def test_problems_have_their_path(document, problem):
    with pytest.raises(InvalidManifest) as caught:
        parse_policy(document)
    assert any(problem in said for said in caught.value.problems), caught.value.problems
