"""The dataplane file of a node: RPCs other than KServe's whose messages name a Predictor.

The form is that of ModelMesh's `dataplane_api_config`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from mesh.wire.field_path import Path
from mesh.wire.problems import Strict, look_up, settled, validated
from mesh.wire.runtime_manifest import Several

MAX_FIELD = 2**29 - 1
KSERVE = "/inference.GRPCInferenceService/"
OWN = (KSERVE, "/grpc.")
FieldNumber = Annotated[int, Field(ge=1, le=MAX_FIELD)]


@dataclass(frozen=True, slots=True)
class Dataplane:
    """`paths`: by `/package.Service/Method`, where the Predictor's name is in the request; empty:
    only in metadata. `are_others_allowed`: RPCs that are not listed are taken by metadata.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    are_others_allowed: bool = False


NONE = Dataplane()


class _Rpc(Strict):
    id_extraction_path: Several[FieldNumber] = ()
    v_model_id: bool = True


class _File(Strict):
    rpc_configs: dict[str, _Rpc] = Field(default_factory=dict)
    allow_other_rpcs: bool = False


def parse_dataplane(document: object) -> Dataplane:
    """Raises InvalidManifest with every problem and its path."""
    file, problems = validated(_File, {} if document is None else document)
    listed = look_up(document, "rpcConfigs")
    for name, config in listed.items() if isinstance(listed, Mapping) else ():
        rpc, _ = validated(_Rpc, config)  # what is wrong with it by itself was said above
        problems += [f"rpcConfigs.{name}: {said}" for said in _problems(_method(name), rpc)]
    file = settled(file, problems)
    rpcs = {_method(name): rpc for name, rpc in file.rpc_configs.items()}
    paths = {
        method: rpc.id_extraction_path
        for method, rpc in rpcs.items()
        if not method.startswith(KSERVE)
    }
    return Dataplane(paths, file.allow_other_rpcs)


def _method(name: object) -> str:
    return f"/{str(name).lstrip('/')}"


def _problems(method: str, rpc: _Rpc | None) -> list[str]:
    """What is wrong with an RPC's name, and with what is said of it, None where that is unread."""
    problems = []
    service, _, name = method[1:].partition("/")
    if not service or not name or "/" in name:
        problems.append("must be package.Service/Method")
    if method.startswith("/grpc."):
        problems.append("is gRPC's own")
    if rpc is None:
        return problems
    given = list(rpc.id_extraction_path)
    if method.startswith(KSERVE) and given not in ([], [1]):
        problems.append(
            f"idExtractionPath must be [1], not {given}: KServe's messages have it there"
        )
    if not rpc.v_model_id:
        problems.append(
            "vModelId must be true, not false: clients name Predictors, not backing models"
        )
    return problems


def is_foreign(method: str) -> bool:
    """Whether an RPC is neither KServe's nor gRPC's own."""
    return not method.startswith(OWN)
