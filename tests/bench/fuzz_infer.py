"""Coverage-guided fuzzing of `wire.infer`: hostile bytes give one error, good ones keep the rest.

`make fuzz SECONDS=180`. Its own environment has atheris, which instruments what it runs.
"""

import sys

import atheris

with atheris.instrument_imports(include=["mesh"]):
    from mesh.core.errors import InvalidRequest
    from mesh.wire.infer import read_head, with_name
    from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
    from mesh.wire.slicing import slice_name

NAME = "another-name-0123456789"


def once(data: bytes) -> None:
    """Raises where something else than InvalidRequest happens, or a field but the name changes.

    Messages are also sliced as large ones are: what that accepts the parser must accept alike.
    """
    sliced = slice_name(data)
    try:
        head = read_head(data, "model_name")
    except InvalidRequest:
        if sliced is not None:
            raise AssertionError("sliced what the parser refuses") from None
        return
    name = head.name
    replaced = with_name(head, NAME)  # changes the head
    if sliced is not None and (sliced.name != name or with_name(sliced, NAME) != replaced):
        raise AssertionError("sliced otherwise than parsed")
    if read_head(replaced, "model_name").name != NAME:
        raise AssertionError("the name was not replaced")
    try:
        before = kfs.ModelInferRequest.FromString(data)
    except Exception:  # noqa: BLE001 - a tensor may be broken where the name is not
        return
    before.model_name = NAME
    if kfs.ModelInferRequest.FromString(replaced) != before:
        raise AssertionError("more than the name was changed")


if __name__ == "__main__":
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
