"""What must hold on one machine: the real MLServer, the real S3 server, the real grpcurl."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest

from tests.support.stand import MNIST, ROOT, Stand, digit, mnist_request, stub
from tests.support.traffic import Traffic

PATH = "sklearn/mnist-svm.joblib"
ID = "example-mnist-predictor-725d74f061"
INFER = "inference.GRPCInferenceService.ModelInfer"


def test_the_call_of_the_walk_through_gives_eight_with_and_without_the_proto_file(stand: Stand):
    stand.apply("example-mnist-predictor", PATH)
    assert stand.infer("example-mnist-predictor") == (ID, 8)
    body = MNIST | {"model_name": "example-mnist-predictor"}
    proto = "-proto=proto/kfs_inference_v2.proto"
    assert stand.grpcurl(proto, INFER, body=body).stdout.count(ID) == 1
    assert "inference.GRPCInferenceService" in stand.grpcurl("list").stdout.splitlines()


def test_requests_before_and_during_a_load_wait_and_cause_one_load(stand: Stand):
    stand.proxy.hold(PATH)
    stand.apply("example-mnist-predictor", PATH)
    assert stand.row("example-mnist-predictor") == "true Loading  UpToDate"
    with stand.channel() as channel, ThreadPoolExecutor(200) as pool:
        call = stub(channel).ModelInfer
        answers = [
            pool.submit(call, mnist_request("example-mnist-predictor"), timeout=60)
            for _ in range(200)
        ]
        stand.proxy.wait_for_held()
        stand.proxy.release()
        assert {(digit(a.result()), a.result().model_name) for a in answers} == {(8, ID)}
    assert stand.loads(ID) == 1
    assert stand.proxy.gets(PATH) == 1


def test_models_that_were_evicted_load_again_on_request(make_stand, mnist):
    size = mnist.stat().st_size * 5 // 4
    stand = make_stand(room_bytes=size * 2 + size // 2, DEFAULT_MODELSIZE=str(size))
    for name in "abc":
        stand.put(f"{name}.joblib", mnist)
        stand.apply(name, f"{name}.joblib")
    with stand.channel() as channel, ThreadPoolExecutor(6) as pool:
        call = stub(channel).ModelInfer
        answers = [pool.submit(call, mnist_request("abcba"[n % 5]), timeout=60) for n in range(60)]
        assert {digit(answer.result()) for answer in answers} == {8}
    stand.until(lambda: len(stand.held()) <= 2, "two models are held")
    assert "model evicted" in stand.log()


def test_update_under_traffic_switches_once_and_loses_nothing(stand: Stand):
    stand.apply("p", PATH)
    old, _ = stand.infer("p")
    with Traffic(stand, "p") as traffic:
        stand.proxy.hold("other")
        assert stand.apply("p", "sklearn/other.joblib") == "predictor/p configured\n"
        stand.reaches("p", "true Loaded Loading InProgress")
        stand.proxy.release()
        stand.reaches("p", "true Loaded  UpToDate")
        new, _ = stand.infer("p")
        traffic.run_for(1.0)
    assert traffic.errors == []
    ids = [model for model, _ in traffic.answers]
    switch = ids.index(new)
    assert set(ids[:switch]) == {old}
    assert set(ids[switch:]) == {new}
    assert {value for _, value in traffic.answers} == {8}
    stand.until(lambda: stand.held() == {new}, "the old copy is gone from MLServer")


def test_update_to_a_path_that_does_not_exist_blocks_serves_and_recovers(stand: Stand, mnist):
    stand.apply("p", PATH)
    old, _ = stand.infer("p")
    with Traffic(stand, "p") as traffic:
        stand.apply("p", "sklearn/nothing.joblib")
        stand.reaches("p", "true Loaded Failed BlockedByFailedLoad")
        assert "sklearn/nothing.joblib" in stand.status("p")["lastFailureInfo"]["message"]
        traffic.run_for(0.5)
        stand.apply("p", PATH)  # going back to the old spec
        stand.reaches("p", "true Loaded  UpToDate")
        stand.apply("p", "sklearn/nothing.joblib")
        stand.reaches("p", "true Loaded Failed BlockedByFailedLoad")
        stand.put("sklearn/nothing.joblib", mnist)  # mending it
        stand.apply("p", "sklearn/nothing.joblib")
        stand.reaches("p", "true Loaded  UpToDate")
    assert traffic.errors == []
    assert {value for _, value in traffic.answers} == {8}
    assert stand.infer("p")[0] != old


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"path": "sklearn/nothing"}, "FailedPrecondition", "sklearn/nothing"),
        ({"bucket": "no-such-bucket"}, "FailedPrecondition", "no-such-bucket"),
        ({"secretKey": "no-key"}, "FailedPrecondition", "Storage secretKey not found: no-key"),
        ({"type_name": "pytorch"}, "FailedPrecondition", "No ServingRuntime supports"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_first_creation_that_cannot_load_names_the_cause(stand: Stand, changed, code, words):
    stand.apply("p", **({"path": PATH} | changed))
    stand.reaches("p", "false Failed  UpToDate")
    assert words in stand.status("p")["lastFailureInfo"]["message"]
    refusal = stand.refusal("p")
    assert f"Code: {code}" in refusal
    assert words in refusal


def test_bad_requests_have_the_codes_of_the_table(stand: Stand):
    assert "Code: NotFound" in stand.refusal("nobody")
    assert "nobody" in stand.refusal("nobody")
    assert "Code: InvalidArgument" in stand.refusal("")
    with stand.channel() as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as truncated:
            send(mnist_request("p").SerializeToString()[:-3])
        assert truncated.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        large = mnist_request("p")
        large.raw_input_contents.append(bytes(17 * 2**20))
        with pytest.raises(grpc.RpcError) as oversized:
            send(large.SerializeToString())
        assert oversized.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_changed_storage_key_is_picked_up_and_the_load_that_waited_tried_again(stand: Stand):
    good = (stand.folder / "keys/wml-serving-example-models").read_text()
    stand.apply("p", PATH, secretKey="late")
    stand.reaches("p", "false Failed  UpToDate")
    assert "storage key changed" not in stand.log()
    (stand.folder / "keys/late").write_text(good)
    stand.until(lambda: "storage key changed" in stand.log(), "it is noticed", deadline_s=2.0)
    stand.reaches("p", "true Loaded  UpToDate")


def test_models_on_the_runtimes_own_disk_within_its_bound(make_stand, mnist, tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    shutil.copy(mnist, root / "m.joblib")
    room_for_two = mnist.stat().st_size * 5 // 2
    stand = make_stand(LOCAL_STORAGE_ROOTS=str(root), MODEL_DISK_BYTES=str(room_for_two))
    key = {"type": "local", "root": str(root)}
    (stand.folder / "keys" / "disk").write_text(json.dumps(key))
    sklearn = {"modelType": {"name": "sklearn"}}
    stand.apply_spec("by-key", sklearn | {"storage": {"key": "disk", "path": "m.joblib"}})
    stand.apply_spec("by-path", sklearn | {"storageUri": f"file://{root}/m.joblib"})
    stand.apply_spec("outside", sklearn | {"storageUri": f"file://{mnist}"})
    assert stand.infer("by-key")[1] == 8
    assert stand.infer("by-path")[1] == 8
    assert f"file '{mnist}' is not in LOCAL_STORAGE_ROOTS" in stand.refusal("outside")
    stand.apply_spec("third", sklearn | {"storageUri": f"file://{root}/m.joblib"})
    assert "disk full" in stand.refusal("third")


def test_predictors_survive_a_restart(stand: Stand):
    stand.apply("example-mnist-predictor", PATH)
    assert stand.infer("example-mnist-predictor") == (ID, 8)
    assert stand.stop() == 0
    stand.start()
    assert stand.infer("example-mnist-predictor") == (ID, 8)


def test_sigterm_during_a_load_lets_the_request_that_waits_for_it_finish(stand: Stand):
    stand.proxy.hold(PATH)
    stand.apply("p", PATH)
    with stand.channel() as channel, ThreadPoolExecutor() as pool:
        answer = pool.submit(stub(channel).ModelInfer, mnist_request("p"), timeout=60)
        stand.proxy.wait_for_held()
        children = psutil.Process(stand.process.pid).children(recursive=True)
        exit_code = pool.submit(stand.stop)
        stand.until(lambda: "stopping" in stand.log(), "it is stopping")
        stand.proxy.release()
        assert digit(answer.result()) == 8
        assert exit_code.result() == 0
    assert not any(child.is_running() for child in children)
    left = [path for path in (stand.folder / "state/models").rglob("*pulling*") if path.is_file()]
    assert left == []


def test_the_model_that_the_field_has_used_for_years_answers_eight(stand: Stand):
    model = ROOT.parent / "shared/models/mnist-svm.joblib"
    if not model.exists():
        pytest.skip("../shared is not there: it is no part of the project")
    stand.put("old.joblib", model)
    stand.apply("p", "old.joblib")
    assert stand.infer("p")[1] == 8
