"""What the checks of a mesh at rest see, on pictures made by hand."""

from dataclasses import replace

import pytest

from mesh.core.ids import NodeId
from mesh.core.records import BackingModel, CopyState, NodeRecord, NodeState, Predictor
from tests.support.builders import model_of, predictor
from tests.support.mesh_checks import Picture, disagreements, stored

NODE = "node0-1"
OTHER = "node1-1"


def served(name: str = "p", path: str = "a") -> tuple[Predictor, BackingModel]:
    model = model_of(name, path)
    return predictor(name, active=model.id, spec=model.spec), model


def picture_of(*pairs: tuple[Predictor, BackingModel]) -> Picture:
    """Two nodes, the first of which holds every model."""
    copies = {(str(model.id), NODE): CopyState.LOADED.value for _, model in pairs}
    held = {str(model.id) for _, model in pairs}
    picture = Picture(
        nodes={it: NodeRecord(NodeId(it), NodeState.READY) for it in (NODE, OTHER)},
        predictors={it.name: it for it, _ in pairs},
        models={model.id: model for _, model in pairs},
        copies=copies,
        claims=(),
        views={},
        held={NODE: held, OTHER: set()},
        running={NODE, OTHER},
    )
    return replace(picture, views={it: stored(picture) for it in (NODE, OTHER)})


def seen_by_other(picture: Picture, **changed: dict[str, str]) -> Picture:
    view = replace(picture.views[OTHER], **changed)
    return replace(picture, views={**picture.views, OTHER: view})


def test_disagreements_of_a_mesh_that_agrees_are_none():
    assert disagreements(picture_of(served("p"), served("q"))) == []


def test_disagreements_where_a_node_knows_a_predictor_that_is_gone_name_it():
    picture = picture_of(served("p"))
    gone = stored(picture_of(served("p"), served("gone"))).predictors
    (problem,) = disagreements(seen_by_other(picture, predictors=gone))
    assert problem.startswith(f"{OTHER} has of predictors gone at rest")


def test_disagreements_where_a_node_lacks_a_predictor_name_it():
    (problem,) = disagreements(seen_by_other(picture_of(served("p")), predictors={}))
    assert problem.startswith(f"{OTHER} has of predictors p None, not at rest")


@pytest.mark.parametrize(
    "change",
    [{"generation": 2}, {"spec": model_of("p", "b").spec}, {"target": model_of("p", "b").id}],
    ids=["generation", "spec", "target"],
)
def test_disagreements_where_a_node_has_an_older_predictor_name_it(change):
    picture = picture_of(served("p"))
    newer, model = served("p")
    older = stored(picture_of((replace(newer, **change), model))).predictors
    (problem,) = disagreements(seen_by_other(picture, predictors=older))
    assert problem.startswith(f"{OTHER} has of predictors p ")


def test_disagreements_where_a_node_knows_a_model_that_is_gone_name_it():
    picture = picture_of(served("p"))
    models = picture.views[OTHER].models | {"p-gone": ""}
    assert disagreements(seen_by_other(picture, models=models)) == [
        f"{OTHER} has of models p-gone , not None"
    ]


def test_disagreements_where_a_node_has_a_model_for_nobody_name_its_predictors():
    picture = picture_of(served("p"))
    (model,) = picture.models
    assert disagreements(seen_by_other(picture, models={model: ""})) == [
        f"{OTHER} has of models {model} , not p"
    ]


@pytest.mark.parametrize(
    "nodes",
    [{NODE: "Ready"}, {NODE: "Ready", OTHER: "Draining"}, {NODE: "Ready", OTHER: "Ready", "x": ""}],
    ids=["missing", "state", "gone"],
)
def test_disagreements_where_a_node_is_wrong_about_nodes_name_it(nodes):
    (problem,) = disagreements(seen_by_other(picture_of(served("p")), nodes=nodes))
    assert problem.startswith(f"{OTHER} has of nodes ")


def test_disagreements_where_a_node_is_wrong_about_a_copy_name_it():
    (problem,) = disagreements(seen_by_other(picture_of(served("p")), copies={}))
    assert problem.startswith(f"{OTHER} has of copies ")


def test_disagreements_with_a_predictor_on_its_way_say_so():
    wanted = model_of("p", "b")
    moving, model = served("p")
    picture = picture_of((replace(moving, target=wanted.id, spec=wanted.spec), model))
    assert f"p is on its way to {wanted.id}" in disagreements(picture)
