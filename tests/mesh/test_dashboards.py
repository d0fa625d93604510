"""deploy/dashboards: what they ask Prometheus for is what a node tells, with labels that it has."""

import json
import re
from collections.abc import Iterator

import pytest

from mesh.ops.metrics import DECLARED
from tests.support.stand import ROOT

DASHBOARD = json.loads((ROOT / "deploy/dashboards/mesh.json").read_text())
# Prometheus puts it to every sample: which node it is of.
OF_THE_SCRAPE = {"instance"}


def samples() -> dict[str, set[str]]:
    """The labels of each sample, by its name."""
    found = {}
    for declared in DECLARED:
        labels = {*declared.labels, *OF_THE_SCRAPE}
        if declared.kind == "histogram":
            found |= {f"{declared.name}_{part}": labels for part in ("count", "sum")}
            found[f"{declared.name}_bucket"] = labels | {"le"}
        else:
            found[declared.name] = labels
    return found


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]


@pytest.mark.parametrize(("query", "legend"), list(queries()))
def test_a_query_is_of_what_there_is(query: str, legend: str):
    known = samples()
    names = re.findall(r"\b(?:modelmesh|wml)_\w+", query)
    assert names
    assert set(names) <= set(known), query
    by = [label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")]
    shown = re.findall(r"{{(\w+)}}", legend)
    for label in (*by, *shown):
        assert label in known[names[0]], query
    if "sum" in query or "max" in query:
        assert set(shown) <= set(by), "what is summed up has no such label any more"


def test_what_every_node_says_of_the_whole_mesh_is_not_summed_up():
    whole = [query for query, _ in queries() if "modelmesh_models_" in query]
    assert whole
    assert all(query.startswith("max(") for query in whole)


def test_panels_do_not_overlap():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
