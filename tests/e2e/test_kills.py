"""kill -9 of each part beside the node, under traffic."""

import grpc

from tests.support.stand import Stand
from tests.support.traffic import Traffic

PATH = "sklearn/mnist-svm.joblib"


def test_mlserver_killed_under_traffic_comes_back_and_its_models_with_it(stand: Stand):
    stand.apply("p", PATH)
    stand.infer("p")
    with Traffic(stand, "p") as traffic:
        traffic.run_for(0.5)
        stand.kill("mlserver")
        stand.until(lambda: "runtime lost" in stand.log(), "the loss is noticed", deadline_s=1.0)
        stand.until(lambda: stand.row("p") == "true Loaded  UpToDate", "it is loaded again")
        traffic.run_for(0.5)
    # The one that was in flight may fail, and so that clients try again.
    assert [error.code() for error in traffic.errors] in ([], [grpc.StatusCode.UNAVAILABLE])
    assert {value for _, value in traffic.answers} == {8}


def test_adapter_killed_under_traffic_is_missed_by_no_loaded_model(stand: Stand):
    stand.apply("p", PATH)
    stand.infer("p")
    with Traffic(stand, "p") as traffic:
        traffic.run_for(0.5)
        stand.kill("adapter")
        stand.until(lambda: "adapter lost" in stand.log(), "the loss is noticed", deadline_s=1.0)
        stand.apply("q", "sklearn/other.joblib")
        assert stand.infer("q")[1] == 8
        traffic.run_for(0.5)
    assert traffic.errors == []
    assert stand.loads(stand.infer("p")[0]) == 1
