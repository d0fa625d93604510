"""Runtimes as who starts and stops them tells of them: a ServingRuntime with its pods' state.

The API server has checked such an object already, and may know fields that we do not: what is not
needed is not read.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from mesh.core.ids import RuntimeName
from mesh.core.records import RuntimeRecord, RuntimeState
from mesh.core.spec import ModelType
from mesh.wire.problems import Strict, settled, validated


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("must be a time as RFC 3339 has it") from error
    return text


class _Loose(Strict):
    """Unknown fields are left alone."""

    model_config = ConfigDict(extra="ignore")


class _Metadata(_Loose):
    name: Annotated[str, Field(min_length=1)]


class _Type(_Loose):
    name: Annotated[str, Field(min_length=1)]
    version: str | None = None
    auto_select: bool = True


_Types = Annotated[tuple[_Type, ...], Field(strict=False)]


class _Spec(_Loose):
    supported_model_types: _Types = ()
    supported_model_formats: _Types = ()
    disabled: bool = False


class _Status(_Loose):
    state: Annotated[RuntimeState, Field(strict=False)]
    since: Annotated[str, AfterValidator(_time)] | None = None


class _Runtime(_Loose):
    metadata: _Metadata
    spec: _Spec
    status: _Status


def parse_runtime_state(document: object) -> RuntimeRecord | None:
    """The record of a runtime, None where it is disabled. Raises InvalidManifest."""
    runtime = settled(*validated(_Runtime, document))
    spec, status = runtime.spec, runtime.status
    if spec.disabled:
        return None
    listed = spec.supported_model_types + spec.supported_model_formats
    types = (ModelType(item.name, item.version or "") for item in listed if item.auto_select)
    return RuntimeRecord(
        RuntimeName(runtime.metadata.name),
        status.state,
        0.0 if status.since is None else _seconds(status.since),
        frozenset(types),
    )


def _seconds(text: str) -> float:
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
