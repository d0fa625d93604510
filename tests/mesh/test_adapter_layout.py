"""How MLServer's models lie on disk; tests/contract has what MLServer makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.errors import AdapterError, InvalidModel, UnusableFiles
from mesh.adapters.mlserver_layout import IMPLEMENTATIONS, Layout
from mesh.adapters.port import LoadRequest
from mesh.core.ids import ModelId, StorageKey
from mesh.core.spec import ModelType
from mesh.storage.pull import Pulled
from mesh.storage.transfer import PullRequest

M = ModelId("m")


class Disk:
    """A models folder; `lay_out` pulls files of these names with empty or given contents."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root, "_served", IMPLEMENTATIONS)
        self.layout.make()

    def lay_out(
        self,
        *names: str,
        kind: str = "sklearn",
        single: bool = False,
        schema: str | None = None,
        **contents: str,
    ) -> None:
        folder = self.root / "_pulling/m"
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(contents.get(path.name.split(".")[0].replace("-", "_"), ""))
        if schema is not None:
            (folder / "_schema.json").write_text(schema)
        pulled = Pulled(
            folder / names[0] if single else folder,
            0,
            len(names),
            None if schema is None else folder / "_schema.json",
        )
        request = LoadRequest(M, ModelType(kind), PullRequest(StorageKey("k"), "p"))
        self.layout.lay_out(request, pulled, folder)

    def settings(self) -> dict[str, Any]:
        found = json.loads((self.root / "_served/m/model-settings.json").read_text())
        assert isinstance(found, dict)
        return found

    def uri(self) -> str:
        return Path(self.settings()["parameters"]["uri"]).relative_to(self.root).as_posix()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.mark.parametrize("kind", sorted(IMPLEMENTATIONS))
def test_lay_out_of_a_file_names_it_and_its_implementation(kind: str, disk: Disk) -> None:
    disk.lay_out("model.bin", kind=kind, single=True)
    assert disk.settings() == {
        "name": "m",
        "implementation": IMPLEMENTATIONS[kind],
        "parameters": {"uri": str(disk.root / "_files/m/model.bin")},
    }
    assert (disk.root / "_files/m/model.bin").is_file()
    assert not (disk.root / "_pulling/m").exists()
    assert disk.layout.laid_out() == {M}


@pytest.mark.parametrize(
    ("names", "kind", "uri"),
    [
        (("a.joblib",), "sklearn", "_files/m/a.joblib"),
        (("v1/a.joblib",), "sklearn", "_files/m/v1/a.joblib"),
        (("model.joblib", "notes.txt"), "sklearn", "_files/m"),
        (("v1/model.joblib", "v1/notes.txt"), "sklearn", "_files/m/v1"),
        (("MLmodel",), "mlflow", "_files/m"),
    ],
)
def test_lay_out_of_a_folder_names_the_only_file_or_the_folder(
    names: tuple[str, ...], kind: str, uri: str, disk: Disk
) -> None:
    disk.lay_out(*names, kind=kind, schema="{}")
    assert disk.uri() == uri


def test_lay_out_keeps_settings_of_a_plain_model_out_of_mlservers_sight(disk: Disk) -> None:
    disk.lay_out("model.joblib", "sub/model-settings.json", model_settings='{"name": "other"}')
    found = [path.relative_to(disk.root).as_posix() for path in (disk.root / "_served").rglob("*")]
    assert sorted(found) == ["_served/m", "_served/m/model-settings.json"]


def test_lay_out_of_a_native_folder_rewrites_name_and_uri_and_keeps_the_rest(disk: Disk) -> None:
    settings = {
        "name": "theirs",
        "implementation": "models.Mine",
        "parameters": {"uri": "./data/model.bin", "version": "v3", "extra": {"a": 1}},
    }
    disk.lay_out(
        "model-settings.json", "models.py", "data/model.bin", model_settings=json.dumps(settings)
    )
    assert disk.settings() == {
        "name": "m",
        "implementation": "models.Mine",
        "parameters": {
            "uri": str(disk.root / "_served/m/data/model.bin"),
            "version": "v3",
            "extra": {"a": 1},
        },
    }
    assert (disk.root / "_served/m/models.py").is_file()


def test_lay_out_of_a_native_folder_without_implementation_takes_the_type_s(disk: Disk) -> None:
    disk.lay_out("model-settings.json", model_settings="{}", kind="xgboost")
    assert disk.settings()["implementation"] == IMPLEMENTATIONS["xgboost"]


def test_lay_out_of_a_native_folder_may_have_any_type(disk: Disk) -> None:
    disk.lay_out("model-settings.json", model_settings='{"implementation": "a.B"}', kind="mine")
    assert disk.settings()["implementation"] == "a.B"


@pytest.mark.parametrize(
    "uri",
    ["/etc/passwd", "../other/model.bin", "a/../../b", "s3://b/k", "file://host/x", "//host/x"],
)
def test_lay_out_of_a_native_folder_stays_in_it(uri: str, disk: Disk) -> None:
    text = json.dumps({"parameters": {"uri": uri}})
    with pytest.raises(UnusableFiles, match=r"parameters\.uri"):
        disk.lay_out("model-settings.json", model_settings=text)


def test_lay_out_of_a_native_folder_follows_no_link_out_of_it(disk: Disk) -> None:
    (disk.root / "_pulling/m").mkdir(parents=True)
    (disk.root / "_pulling/m/link").symlink_to("/etc")
    text = json.dumps({"parameters": {"uri": "link/passwd"}})
    with pytest.raises(UnusableFiles, match="leads out"):
        disk.lay_out("model-settings.json", model_settings=text)


@pytest.mark.parametrize("text", ["", "[]", '{"parameters": 1}'])
def test_lay_out_of_native_settings_that_are_none_says_so(text: str, disk: Disk) -> None:
    with pytest.raises(UnusableFiles, match=r"model-settings\.json: "):
        disk.lay_out("model-settings.json", model_settings=text)


def test_lay_out_of_a_native_folder_with_a_second_model_is_refused(disk: Disk) -> None:
    with pytest.raises(UnusableFiles, match="another at sub/model-settings"):
        disk.lay_out("model-settings.json", "sub/model-settings.json", model_settings="{}")


def test_lay_out_writes_the_tensors_of_a_schema(disk: Disk) -> None:
    schema = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
    }
    disk.lay_out("model.joblib", single=True, schema=json.dumps(schema))
    settings = disk.settings()
    assert {name: settings[name] for name in schema} == schema


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ("{", "Invalid JSON"),
        ('{"inputs": [{"datatype": "FP32", "shape": [1]}]}', "inputs.0.name: Field required"),
        ('{"inputs": [{"name": "x", "datatype": "F", "shape": []}]}', "inputs.0.datatype: "),
        ('{"outputs": [{"name": "x", "datatype": "BOOL"}]}', "outputs.0.shape: "),
    ],
)
def test_lay_out_names_what_is_wrong_in_a_schema(schema: str, problem: str, disk: Disk) -> None:
    with pytest.raises(UnusableFiles) as caught:
        disk.lay_out("model.joblib", single=True, schema=schema)
    assert problem in caught.value.message


def test_lay_out_of_a_type_without_implementation_names_it(disk: Disk) -> None:
    with pytest.raises(InvalidModel, match="no model type 'mllib'; it has catboost, lightgbm"):
        disk.lay_out("model.bin", kind="mllib")


@pytest.mark.parametrize("name", ["a#b.joblib", "a?b.joblib"])
def test_lay_out_of_a_name_that_mlserver_cannot_address_says_so(name: str, disk: Disk) -> None:
    with pytest.raises(AdapterError, match="has # or"):
        disk.lay_out(name, single=True)


def test_lay_out_takes_the_place_of_what_was_left(disk: Disk) -> None:
    disk.lay_out("old.joblib", single=True)
    disk.lay_out("new.joblib", single=True)
    assert disk.uri() == "_files/m/new.joblib"
    assert not (disk.root / "_files/m/old.joblib").exists()


def test_remove_leaves_nothing_and_may_find_nothing(disk: Disk) -> None:
    disk.lay_out("model.joblib", single=True)
    disk.layout.remove(M)
    disk.layout.remove(M)
    assert disk.layout.laid_out() == frozenset()
    assert sorted(path.name for path in disk.root.rglob("*")) == ["_files", "_pulling", "_served"]
