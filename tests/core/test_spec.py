"""Which runtime takes which model."""

import pytest

from mesh.core.ids import RuntimeName, StorageKey
from mesh.core.spec import ModelSource, ModelType, RuntimeSpec

RUNTIME = RuntimeSpec(RuntimeName("r"), frozenset({ModelType("sklearn", "0"), ModelType("onnx")}))


def wanting(name: str, version: str = "", runtime: str | None = None) -> ModelSource:
    named = None if runtime is None else RuntimeName(runtime)
    return ModelSource(ModelType(name, version), "path", StorageKey("k"), runtime=named)


@pytest.mark.parametrize(
    ("source", "is_supported"),
    [
        (wanting("sklearn"), True),
        (wanting("sklearn", "0"), True),
        (wanting("sklearn", "1"), False),
        (wanting("onnx"), True),
        (wanting("onnx", "1"), False),
        (wanting("pytorch"), False),
        (wanting("pytorch", runtime="r"), True),
        (wanting("sklearn", runtime="other"), False),
    ],
)
def test_runtime_takes_its_types_and_whatever_names_it(source, is_supported):
    assert RUNTIME.supports(source) is is_supported


def test_runtime_without_types_takes_only_what_names_it():
    nothing = RuntimeSpec(RuntimeName("r"))
    assert not nothing.supports(wanting("sklearn"))
    assert nothing.supports(wanting("sklearn", runtime="r"))


def test_model_type_reads_as_name_and_version():
    assert str(ModelType("sklearn", "0")) == "sklearn:0"
    assert str(ModelType("sklearn")) == "sklearn"
