"""How MLServer wants a model on disk: a folder with a `model-settings.json`.

MLServer reads every settings file below its root, at any depth, at each load, and goes by the name
in it, not by the folder's. So a model's files stay outside that root, in `_files/<id>`, where no
settings file among them can speak for another model; only a native model, which brings its own
settings and may bring code that lies beside them, is in the root itself, and may have but one.
A folder comes to its place by a rename: MLServer never reads half of one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mesh.adapters.errors import InvalidModel, UnusableFiles
from mesh.adapters.folders import remove
from mesh.adapters.mlserver_schema import read_tensors
from mesh.adapters.model_key import is_safe_id
from mesh.adapters.port import LoadRequest
from mesh.core.ids import ModelId
from mesh.core.spec import ModelType
from mesh.storage.pull import Pulled
from mesh.storage.transfer import SCHEMA

SETTINGS = "model-settings.json"
FILES = "_files"
IMPLEMENTATIONS: Mapping[str, str] = {
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "mlflow": "mlserver_mlflow.MLflowRuntime",
    "catboost": "mlserver_catboost.CatboostModel",
}
# Loaded from a folder whatever is in it: the others want a file.
FOLDER_TYPES = frozenset({"mlflow"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Below `root`: MLServer's own folder is `subdir`. All of it is blocking."""

    root: Path
    subdir: str
    implementations: Mapping[str, str]

    def make(self) -> None:
        self._served.mkdir(parents=True, exist_ok=True)
        self._files.mkdir(exist_ok=True)

    def lay_out(self, request: LoadRequest, pulled: Pulled, folder: Path) -> None:
        """Moves the pulled files into place. Raises InvalidModel or UnusableFiles."""
        tensors = read_tensors(pulled.schema) if pulled.schema is not None else {}
        self.remove(request.model)
        if pulled.path.is_dir() and (pulled.path / SETTINGS).is_file():
            self._native(request, pulled.path, tensors)
        else:
            self._plain(request, pulled.path.relative_to(folder), folder, tensors)

    def remove(self, model: ModelId) -> None:
        remove(self._served / model)
        remove(self._files / model)

    def laid_out(self) -> frozenset[ModelId]:
        found = (*self._served.iterdir(), *self._files.iterdir())
        return frozenset(ModelId(path.name) for path in found if is_safe_id(path.name))

    @property
    def _served(self) -> Path:
        return self.root / self.subdir

    @property
    def _files(self) -> Path:
        return self.root / FILES

    def _plain(
        self, request: LoadRequest, place: Path, folder: Path, tensors: Mapping[str, Any]
    ) -> None:
        implementation = self._implementation(request.type)
        home = self._files / request.model
        uri = home / _model_place(folder, place, request.type)
        if {"#", "?"} & set(str(uri)):
            raise UnusableFiles(f"MLServer cannot load a file whose name has # or ?: {uri.name!r}")
        folder.rename(home)
        settings = {
            "name": request.model,
            "implementation": implementation,
            "parameters": {"uri": str(uri)},
            **tensors,
        }
        # Where the files were: a pull's folder is emptied whatever happens.
        folder.mkdir()
        _write(folder / SETTINGS, settings)
        folder.rename(self._served / request.model)

    def _native(self, request: LoadRequest, folder: Path, tensors: Mapping[str, Any]) -> None:
        settings = _native_settings(folder)
        home = self._served / request.model
        parameters = dict(settings.get("parameters") or {})
        if parameters.get("uri"):
            parameters["uri"] = str(home / _inside(folder, str(parameters["uri"])))
        named = {**settings, **tensors, "name": request.model, "parameters": parameters}
        if not named.get("implementation"):
            named["implementation"] = self._implementation(request.type)
        _write(folder / SETTINGS, named)
        folder.rename(home)

    def _implementation(self, kind: ModelType) -> str:
        if (found := self.implementations.get(kind.name)) is None:
            known = ", ".join(sorted(self.implementations))
            raise InvalidModel(
                "modelKey.model_type.name",
                f"MLServer has no model type {kind.name!r}; it has {known}",
            )
        return found


def _model_place(folder: Path, place: Path, kind: ModelType) -> Path:
    """What to load, below `folder`: a file; a folder where MLServer has to choose among several."""
    if (folder / place).is_file() or kind.name in FOLDER_TYPES:
        return place
    entries = [entry.name for entry in (folder / place).iterdir() if entry.name != SCHEMA.name]
    if len(entries) == 1:
        return _model_place(folder, place / entries[0], kind)
    return place


def _native_settings(folder: Path) -> dict[str, Any]:
    others = [path for path in folder.rglob(SETTINGS) if path.parent != folder]
    if others:
        place = others[0].relative_to(folder)
        raise UnusableFiles(f"a model has one {SETTINGS}, there is another at {place}")
    try:
        settings = json.loads((folder / SETTINGS).read_bytes())
    except ValueError as error:
        raise UnusableFiles(f"{SETTINGS}: is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise UnusableFiles(f"{SETTINGS}: must be a JSON object")
    if not isinstance(settings.get("parameters") or {}, dict):
        raise UnusableFiles(f"{SETTINGS}: parameters: must be a JSON object")
    return settings


def _inside(folder: Path, uri: str) -> Path:
    """The place below `folder` that a native model's uri means; raises UnusableFiles."""
    parts = urlsplit(uri)
    place = Path(parts.path)
    is_file = parts.scheme in ("", "file") and not parts.netloc
    if not is_file or place.is_absolute() or ".." in place.parts:
        raise UnusableFiles(f"{SETTINGS}: parameters.uri: {uri!r} is not in the model's folder")
    if not (folder / place).resolve().is_relative_to(folder.resolve()):
        raise UnusableFiles(f"{SETTINGS}: parameters.uri: {uri!r} leads out of the model's folder")
    return place


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2))
