"""Logs of a whole scenario, at their most talkative: no credential is in them, and no tensor."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.stand import MNIST, STORAGE_KEY, Stand

PATH = "sklearn/mnist-svm.joblib"
WRONG_SECRET = "wrong-secret-5e1f0c"
# A value that no log has for another reason.
PIXEL = 8_675_309.25


def test_logs_at_debug_hold_neither_credentials_nor_tensors(
    make_stand: Callable[..., Stand], mnist: Path
):
    stand = make_stand(LOG_LEVEL="debug")
    stand.put(PATH, mnist)
    stand.s3.write_key(stand.folder / "keys", "wrong", stand.bucket, secret_access_key=WRONG_SECRET)
    assert stand.stop() == 0
    stand.arguments += ("--log-level", "debug", "--log-format", "json")
    stand.start()
    stand.apply("good", PATH)
    stand.apply("bad", PATH, secretKey="wrong")
    ask(stand, "good", shape=[1, 64])
    ask(stand, "good", shape=[1, 3])  # refused by the model
    ask(stand, "bad", shape=[1, 64])
    ask(stand, "nobody", shape=[1, 64])
    stand.until(lambda: "storage key 'wrong'" in stand.log(), "the failed load is logged")
    # A changed key is read and used again.
    stand.s3.write_key(stand.folder / "keys", "wrong", stand.bucket)
    stand.until(lambda: stand.row("bad").startswith("true"), "the corrected key is used")
    assert stand.stop() == 0
    written = {
        path.name: path.read_text()
        for path in (stand.folder / "serve.log", *(stand.folder / "state/logs").iterdir())
    }
    lines = [json.loads(line) for line in written["serve.log"].splitlines() if line[0] == "{"]
    (refused,) = [line for line in lines if "'nobody'" in line.get("cause", "")]
    assert refused["request_id"]
    nodes = {line.get("node") for line in lines if line["logger"].startswith("mesh.agent")}
    assert nodes == {refused["node"]}
    assert "storage key changed" in written["mlserver-adapter.log"]
    secret = json.loads((stand.folder / "keys" / STORAGE_KEY).read_text())["secret_access_key"]
    for name, text in written.items():
        found = [word for word in (secret, WRONG_SECRET, "8675309") if word in text]
        assert found == [], name


def ask(stand: Stand, name: str, *, shape: list[int]) -> None:
    """A request with a conspicuous pixel, answered or not."""
    body = json.loads(json.dumps(MNIST)) | {"model_name": name}
    (tensor,) = body["inputs"]
    count = shape[1]
    tensor["shape"] = shape
    tensor["contents"] = {"fp32_contents": [PIXEL] * count}
    stand.grpcurl("inference.GRPCInferenceService.ModelInfer", body=body)
