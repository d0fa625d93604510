"""The command line against a real `serve`: what it says of a load, and the answer."""

import json
from concurrent.futures import ThreadPoolExecutor

from tests.support.stand import ROOT, Stand

PATH = "sklearn/mnist-svm.joblib"
REQUEST = ROOT / "docs/requests/mnist.json"


def test_infer_on_a_cold_model_waits_for_the_pull_that_describe_shows(stand: Stand):
    stand.proxy.hold(PATH)
    stand.apply("p", PATH)
    address = f"127.0.0.1:{stand.port}"
    with ThreadPoolExecutor() as pool:
        arguments = ("infer", "p", "--inference-server", address, "-f", str(REQUEST))
        answer = pool.submit(stand.cli, *arguments)
        stand.proxy.wait_for_held()
        stand.until(lambda: "pulling" in stand.cli("describe", "predictor", "p").stdout, "a pull")
        assert not answer.done()
        stand.proxy.release()
        assert json.loads(answer.result().stdout)["outputs"][0]["data"] == [8]
        assert "pulling" in answer.result().stderr
    described = stand.cli("describe", "predictor", "p").stdout
    assert "pulling" not in described
    assert [word in described for word in ("Created", "Loading", "Loaded")] == [True] * 3
