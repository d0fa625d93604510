"""V2 over HTTP with the real MLServer: what its own REST says, by curl and by tritonclient."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.s3 import S3Server
from tests.support.stand import MLSERVER_BIN, MNIST, Stand, standing
from tests.support.waiting import DEADLINE_S

NAME, PATH = "example-mnist-predictor", "sklearn/mnist-svm.joblib"
PIXELS = MNIST["inputs"][0]["contents"]["fp32_contents"]
TENSOR = {"name": "predict", "shape": [1, 64], "datatype": "FP32"}
REQUEST = {"id": "r1", "inputs": [TENSOR | {"data": PIXELS}]}
# MLServer's environment has tritonclient with HTTP, since it is one of its own clients.
TRITON = """
import json, sys
import numpy
import tritonclient.http as triton

address, name, pixels = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
assert client.get_server_metadata()["name"] == "wml-serving"
assert client.get_model_metadata(name)["name"].startswith(name)
found = []
values = numpy.array([pixels], dtype=numpy.float32)
for is_sent_raw in (True, False):
    image = triton.InferInput("predict", values.shape, "FP32")
    image.set_data_from_numpy(values, binary_data=is_sent_raw)
    for outputs in (None, [triton.InferRequestedOutput("predict", binary_data=False)]):
        for compressed in (None, "gzip"):
            answer = client.infer(
                name,
                [image],
                outputs=outputs,
                request_compression_algorithm=compressed,
                response_compression_algorithm=compressed,
            )
            found.append(answer.as_numpy("predict").tolist())
try:
    client.infer("nobody", [image])
except triton.InferenceServerException as error:
    found.append([error.status(), error.message()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def rest(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, mnist: Path
) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("rest"), s3_server) as stand:
        stand.put(PATH, mnist)
        stand.apply(NAME, PATH)
        stand.infer(NAME)  # ready is what is loaded
        yield stand


def curl(port: int, path: str, body: object = None, *flags: str) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    data = [] if body is None else ["--data-binary", "@-"]
    command = [
        "curl",
        "-sS",
        "-w",
        "\n%{http_code}",
        *data,
        *flags,
        f"http://127.0.0.1:{port}{path}",
    ]
    done = subprocess.run(
        command,
        input=None if body is None else json.dumps(body),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(answer)


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Without parameters where there are none: MLServer has an empty object then."""
    return {key: value for key, value in answer.items() if value or key != "parameters"}


def mlserver_port(stand: Stand) -> int:
    """That of MLServer's own REST, by its environment."""
    assert stand.process is not None
    children = psutil.Process(stand.process.pid).children(recursive=True)
    (server,) = [child for child in children if "/mlserver start" in " ".join(child.cmdline())]
    return int(server.environ()["MLSERVER_HTTP_PORT"])


def test_answers_are_those_of_mlservers_own_rest(rest: Stand):
    status, answer = curl(rest.rest_port, f"/v2/models/{NAME}/infer", REQUEST)
    assert status == 200
    model, own = answer["model_name"], mlserver_port(rest)
    assert answer["outputs"][0]["data"] == [8]
    for path, body in (("/infer", REQUEST), ("", None)):
        theirs = curl(own, f"/v2/models/{model}{path}", body, "-HContent-Type: application/json")
        ours = curl(rest.rest_port, f"/v2/models/{NAME}{path}", body)
        assert (ours[0], plain(ours[1])) == (theirs[0], plain(theirs[1]))
    status, answer = curl(rest.rest_port, "/v2/models/nobody/infer", REQUEST)
    assert (status, answer) == (404, {"error": "predictor 'nobody' not found"})


def test_tritonclient_is_served_with_tensors_as_bytes_and_as_json(rest: Stand):
    program = [MLSERVER_BIN / "python", "-c", TRITON]
    arguments = [f"127.0.0.1:{rest.rest_port}", NAME, json.dumps(PIXELS)]
    done = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[[8]]] * 8 + [["404", "predictor 'nobody' not found"]]
