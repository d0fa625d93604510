"""A controller put together: what its metrics tell."""

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


def test_metrics_are_those_of_the_documentation():
    place = Place("ns", "c-1", Installation("image"), None)
    measures = Measures()
    controller = Controller(MemoryKube(), Connections("127.0.0.1:1", None), place, CLOCK)
    show(controller, measures)
    measures.called("GET")
    controller.site.predictor_work.add("p")
    text = generate_latest(measures.registry).decode()
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert samples == {
        "wml_controller_leading": 0,
        "wml_controller_connected": 0,
        "wml_controller_predictors_waiting": 1,
        "wml_controller_runtimes_waiting": 0,
        "wml_controller_kube_requests_total": 1,
    }
    page = Path("docs/kubernetes.md").read_text()
    assert set(re.findall(r"`(wml_controller_\w+)`", page)) == set(samples)
