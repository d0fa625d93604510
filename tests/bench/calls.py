"""Single calls by a gRPC client, which check that the answer is the right one."""

import struct
import time
from contextlib import AbstractContextManager

import grpc

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from tests.bench.servers import Server

OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
ECHOED = "x-bench"
TIMEOUT_S = 30.0
# What field 7 takes beside its bytes, at most: a tag and the length.
RAW_OVERHEAD = 8


class WrongAnswer(Exception):
    """A way to the backend answers, but not what it should."""


def request(name: str, size_bytes: int = 300, request_id: str = "bench") -> kfs.ModelInferRequest:
    """A ModelInferRequest that is so many bytes long once it is serialised."""
    message = kfs.ModelInferRequest(model_name=name, id=request_id)
    shape = [1, size_bytes]
    message.inputs.add(name="predict", datatype="UINT8", shape=shape)
    message.raw_input_contents.append(bytes(max(0, size_bytes - message.ByteSize() - RAW_OVERHEAD)))
    missing = size_bytes - message.ByteSize()
    message.raw_input_contents[0] += bytes(max(0, missing))
    return message


class Caller(AbstractContextManager["Caller"]):
    """One channel to one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._channel = grpc.insecure_channel(server.address, options=OPTIONS)
        self._stub = kfs_grpc.GRPCInferenceServiceStub(self._channel)

    def check(self, message: kfs.ModelInferRequest, model: str = "") -> float:
        """Seconds that the call took; `model` must answer, by default the server's.

        Raises WrongAnswer, or RpcError where it failed.
        """
        started = time.perf_counter()
        metadata = ((ECHOED, message.id),)
        answer, call = self._stub.ModelInfer.with_call(
            message, timeout=TIMEOUT_S, metadata=metadata
        )
        took_s = time.perf_counter() - started
        trailers = dict(call.trailing_metadata())
        came = (answer.model_name, answer.id, *answer.raw_output_contents, trailers.get(ECHOED))
        length = struct.pack("<Q", sum(len(raw) for raw in message.raw_input_contents))
        wanted = (model or self._server.model, message.id, length, message.id)
        if call.code() is not grpc.StatusCode.OK or came != wanted:
            raise WrongAnswer(f"{self._server.name}: {call.code()} {came}, not {wanted}")
        return took_s

    def __exit__(self, *_: object) -> None:
        self._channel.close()
