"""The name in a request, read and replaced in the raw bytes. No tensor is decoded.

Only field 1 is known to `Head`; all else stays as bytes in the message's unknown fields, whatever
order, length or encoding it came in. protobuf's own parser does the walking, in C, so hostile input
meets the same code as everywhere else.
"""

from google.protobuf.message import DecodeError

from mesh.core.errors import InvalidRequest
from mesh.wire.pb.wml_head_pb2 import Head


def read_head(message: bytes, field: str = "model_name") -> Head:
    """The head of a request; InvalidRequest, naming `field`, where the message cannot be parsed.

    An empty name is no error here: metadata may name the model.
    """
    try:
        return Head.FromString(message)
    except DecodeError as error:
        problem = f"the request is no valid protobuf message ({len(message)} bytes): {error}"
        raise InvalidRequest(field, problem) from error


def with_name(head: Head, name: str) -> bytes:
    """The message with this name in place of the old one, and everything else as it was."""
    head.name = name
    return head.SerializeToString()
