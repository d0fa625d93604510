"""Tensors as bytes beside the JSON of V2: Triton's binary tensor data extension.

An input whose parameters have `binary_data_size` has so many bytes behind the JSON, in the order of
the inputs. An output comes back in the same form where its `binary_data`, or for all outputs the
request's `binary_data_output`, is true.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.core.errors import InvalidRequest
from mesh.wire import tensors
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs

SIZE = "binary_data_size"
ONE, ALL = "binary_data", "binary_data_output"
BEHIND = "bytes behind the JSON"


class Tail:
    """The bytes behind the JSON, handed out in the order of the inputs."""

    def __init__(self, content: bytes = b"") -> None:
        self._left = memoryview(content)
        self._taken: dict[int, bytes] = {}

    def take(self, tensor: Any, index: int, place: str) -> bool:
        """Whether the input's data are here; they are set apart then. Raises InvalidRequest."""
        if SIZE not in tensor.parameters:
            return False
        wanted = tensors.raw_bytes(tensor.datatype, tensor.shape, place)
        place = f"{place}.parameters.{SIZE}"
        given = tensor.parameters[SIZE]
        size = given.int64_param
        if given.WhichOneof("parameter_choice") != "int64_param" or size < 0:
            raise InvalidRequest(place, "must be a whole number of bytes")
        if size > len(self._left):
            raise InvalidRequest(place, f"is {size}, but {len(self._left)} {BEHIND} are left")
        if wanted is not None and wanted != size:
            raise InvalidRequest(place, f"is {size}, but datatype and shape have {wanted} bytes")
        self._taken[index] = bytes(self._left[:size])
        self._left = self._left[size:]
        del tensor.parameters[SIZE]
        return True

    def finish(self, request: kfs.ModelInferRequest) -> None:
        """Where some input came as bytes, all become raw contents. Raises InvalidRequest."""
        if self._left:
            raise InvalidRequest("inputs", f"{len(self._left)} {BEHIND} are of no input")
        if not self._taken:
            return
        for index, tensor in enumerate(request.inputs):
            raw = self._taken.get(index)
            if raw is None:
                raw = tensors.encode_raw(tensor.datatype, tensor.contents)
            request.raw_input_contents.append(raw)
            tensor.ClearField("contents")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which outputs are wanted as bytes: `named` where the request says so of one."""

    are_all: bool = False
    named: Mapping[str, bool] = field(default_factory=dict)

    def is_binary(self, output: str) -> bool:
        return self.named.get(output, self.are_all)


JSON_ALONE = Wanted()


def take_wanted(request: kfs.ModelInferRequest) -> Wanted:
    """What the request says of its outputs' form, which the runtime is not told.

    Raises InvalidRequest.
    """
    are_all = _taken(request.parameters, ALL, "parameters")
    named = {}
    for index, output in enumerate(request.outputs):
        is_binary = _taken(output.parameters, ONE, f"outputs[{index}].parameters")
        if is_binary is not None:
            named[output.name] = is_binary
    return Wanted(bool(are_all), named)


def _taken(parameters: Any, key: str, place: str) -> bool | None:
    if key not in parameters:
        return None
    value = parameters[key]
    if value.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest(f"{place}.{key}", "must be true or false")
    is_wanted = bool(value.bool_param)
    del parameters[key]
    return is_wanted
