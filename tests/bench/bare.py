"""The floor for a proxy in `grpc.aio`: passes bytes, metadata, trailers and errors, and no more.

`python -m tests.bench.bare UPSTREAM` prints its address. A row of the benchmark, so that what the
mesh adds is told from what gRPC costs in Python.
"""

import sys

import grpc
import grpc.aio
import uvloop

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Everything(grpc.GenericRpcHandler):  # type: ignore[type-arg] # in the stubs only
    """Answers every method by the upstream's ModelInfer."""

    def __init__(self, upstream: str) -> None:
        channel = grpc.aio.insecure_channel(upstream, options=OPTIONS)
        self._call = channel.unary_unary(METHOD, None, None)
        self._handler = grpc.unary_unary_rpc_method_handler(self._pass)

    def service(self, handler_call_details):
        return self._handler

    async def _pass(self, message, context):
        metadata = tuple((k, v) for k, v in context.invocation_metadata() if k != "user-agent")
        call = self._call(message, metadata=metadata or None, timeout=context.time_remaining())
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            trailing = tuple(error.trailing_metadata())
            await context.abort(error.code(), error.details() or "", trailing)
        trailers = await call.trailing_metadata()
        if initial := await call.initial_metadata():
            await context.send_initial_metadata(tuple(initial))
        if trailers:
            context.set_trailing_metadata(tuple(trailers))
        return answer


async def serve(upstream: str) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Everything(upstream),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
