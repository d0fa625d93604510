"""A controller put together: what its metrics tell."""

import asyncio
import re
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mesh.controller.controller import Controller, Place, show
from mesh.controller.doors import Measures
from mesh.controller.management import Connections
from mesh.controller.pods import Installation
from tests.support.kube_memory import MemoryKube
from tests.support.virtual_time import CLOCK
from tests.support.world import begin

PAGE = Path("docs/kubernetes.md").read_text()
NAMESPACES = frozenset({"ns", "other"})


async def test_metrics_are_those_of_the_documentation():
    place = Place("ns", NAMESPACES, "c-1", Installation("image"), None)
    measures = Measures()
    nowhere = Connections("127.0.0.1:1", None)
    controller = Controller(MemoryKube(), lambda _: nowhere, place, CLOCK)
    show(controller, measures)
    measures.called("GET")
    working = begin(controller.estate.run())
    while controller.sites.keys() != NAMESPACES:  # noqa: ASYNC110 - two turns of the loop
        await asyncio.sleep(0)
    controller.sites["ns"].predictor_work.add("p")
    text = generate_latest(measures.registry).decode()
    working.cancel()
    samples = {
        (sample.name, sample.labels.get("namespace")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert samples == {
        ("wml_controller_leading", None): 0,
        ("wml_controller_connected", "ns"): 0,
        ("wml_controller_connected", "other"): 0,
        ("wml_controller_predictors_waiting", "ns"): 1,
        ("wml_controller_predictors_waiting", "other"): 0,
        ("wml_controller_runtimes_waiting", "ns"): 0,
        ("wml_controller_runtimes_waiting", "other"): 0,
        ("wml_controller_kube_requests_total", None): 1,
    }
    assert set(re.findall(r"`(wml_controller_\w+)`", PAGE)) == {name for name, _ in samples}
