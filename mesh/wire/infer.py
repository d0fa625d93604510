"""The name in a request, read and replaced in the raw bytes. No tensor is decoded.

Only field 1 is known to `Head`; all else stays as bytes in the message's unknown fields, whatever
order, length or encoding it came in. protobuf's own parser does the walking, in C, so hostile input
meets the same code as everywhere else. It copies a message twice, so that large ones are sliced
where they are plain.
"""

from typing import TypeAlias

from google.protobuf.message import DecodeError

from mesh.core.errors import InvalidRequest
from mesh.wire.pb.wml_head_pb2 import Head
from mesh.wire.slicing import Sliced, slice_name

# From here on copying costs more than slicing (docs/performance.md).
LARGE_BYTES = 16 * 1024

Named: TypeAlias = Head | Sliced


def read_head(message: bytes, field: str = "model_name") -> Named:
    """The head of a request; InvalidRequest, naming `field`, where the message cannot be parsed.

    An empty name is no error here: metadata may name the model.
    """
    if len(message) >= LARGE_BYTES and (sliced := slice_name(message)) is not None:
        return sliced
    try:
        return Head.FromString(message)
    except DecodeError as error:
        problem = f"the request is no valid protobuf message ({len(message)} bytes): {error}"
        raise InvalidRequest(field, problem) from error


def with_name(head: Named, name: str) -> bytes:
    """The message with this name in place of the old one, and everything else as it was."""
    if isinstance(head, Sliced):
        start = Head(name=name).SerializeToString()
        return b"".join((start, memoryview(head.message)[head.rest :]))
    head.name = name
    return head.SerializeToString()
