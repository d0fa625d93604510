"""Makes one model of a type, of about so many bytes: run by the Python of an MLServer environment.

    python make_sized_model.py KIND BYTES FOLDER

Prints the path of what was made. All take 64 numbers and give a class.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FEATURES = 64
SEED = 7


def data(rows: int) -> tuple[Any, Any]:
    """Noise with a rule in it, so that trees grow and support vectors are many."""
    import numpy as np

    random = np.random.default_rng(SEED)
    values = random.normal(size=(rows, FEATURES)).astype(np.float32)
    labels = (values[:, :8].sum(axis=1) + random.normal(size=rows) > 0).astype(int)
    return values, labels


def sklearn_svm(effort: int, path: Path) -> Path:
    from sklearn.svm import SVC

    return _dumped(SVC().fit(*data(100 * effort)), path)


def sklearn_forest(effort: int, path: Path) -> Path:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(n_estimators=effort, random_state=SEED)
    return _dumped(model.fit(*data(2_000)), path)


def xgboost_json(effort: int, path: Path) -> Path:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=4 * effort, max_depth=8).fit(*data(2_000))
    model.save_model(path.with_suffix(".json"))
    return path.with_suffix(".json")


def xgboost_ubj(effort: int, path: Path) -> Path:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=4 * effort, max_depth=8).fit(*data(2_000))
    model.save_model(path.with_suffix(".ubj"))
    return path.with_suffix(".ubj")


def lightgbm_text(effort: int, path: Path) -> Path:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=4 * effort, num_leaves=63, verbose=-1)
    model.fit(*data(2_000))
    model.booster_.save_model(path.with_suffix(".bst"))
    return path.with_suffix(".bst")


def catboost_cbm(effort: int, path: Path) -> Path:
    import catboost

    model = catboost.CatBoostClassifier(
        iterations=8 * effort, depth=8, verbose=False, allow_writing_files=False
    )
    model.fit(*data(2_000))
    model.save_model(str(path.with_suffix(".cbm")))
    return path.with_suffix(".cbm")


def mlflow_sklearn(effort: int, path: Path) -> Path:
    import mlflow.sklearn
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(n_estimators=effort, random_state=SEED).fit(*data(2_000))
    shutil.rmtree(path, ignore_errors=True)
    trusted = ["sklearn.tree._tree.Tree"]
    mlflow.sklearn.save_model(model, str(path), pip_requirements=[], skops_trusted_types=trusted)
    return path


KINDS: dict[str, Callable[[int, Path], Path]] = {
    "sklearn-svm": sklearn_svm,
    "sklearn-forest": sklearn_forest,
    "xgboost-json": xgboost_json,
    "xgboost-ubj": xgboost_ubj,
    "lightgbm": lightgbm_text,
    "catboost": catboost_cbm,
    "mlflow": mlflow_sklearn,
}


def size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def main(kind: str, wanted_bytes: int, folder: Path) -> Path:
    """More effort until it is large enough."""
    folder.mkdir(parents=True, exist_ok=True)
    effort = 2
    while True:
        path = KINDS[kind](effort, folder / f"{kind}-{wanted_bytes}")
        made_bytes = size_bytes(path)
        if made_bytes >= 0.8 * wanted_bytes:
            return path
        effort = max(effort + 1, min(4 * effort, int(effort * wanted_bytes / made_bytes)))


def _dumped(model: Any, path: Path) -> Path:
    import joblib

    joblib.dump(model, path.with_suffix(".joblib"))
    return path.with_suffix(".joblib")


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
