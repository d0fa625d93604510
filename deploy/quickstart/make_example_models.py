"""Makes the example models: `make_example_models.py FOLDER`.

It runs in MLServer's environment, which has the libraries; the package itself needs none of them.
The same libraries give the same bytes each time. docs/example-models.md has the answers.
"""

import sys
from pathlib import Path

import joblib
import lightgbm
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.svm import SVC
from xgboost import XGBClassifier

MNIST_SVM = "sklearn/mnist-svm.joblib"
MNIST_TREES = "xgboost/mnist.json"
CANCER_TREES = "lightgbm/breast-cancer.bst"
# The image of the documentation's request, and what it shows.
DOCUMENTED = [
    [0.0, 0.0, 1.0, 11.0, 14.0, 15.0, 3.0, 0.0],
    [0.0, 1.0, 13.0, 16.0, 12.0, 16.0, 8.0, 0.0],
    [0.0, 8.0, 16.0, 4.0, 6.0, 16.0, 5.0, 0.0],
    [0.0, 5.0, 15.0, 11.0, 13.0, 14.0, 0.0, 0.0],
    [0.0, 0.0, 2.0, 12.0, 16.0, 13.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 13.0, 16.0, 16.0, 6.0, 0.0],
    [0.0, 0.0, 0.0, 16.0, 16.0, 16.0, 7.0, 0.0],
    [0.0, 0.0, 0.0, 11.0, 13.0, 12.0, 1.0, 0.0],
]
EXPECTED = 8


def main(folder: Path) -> str:
    """Writes the models; what is wrong with them, empty if nothing."""
    for name in (MNIST_SVM, MNIST_TREES, CANCER_TREES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(digits_svm(), folder / MNIST_SVM)
    digits_trees().save_model(folder / MNIST_TREES)
    cancer_trees().save_model(folder / CANCER_TREES)
    image = [[pixel for row in DOCUMENTED for pixel in row]]
    trees = XGBClassifier()
    trees.load_model(folder / MNIST_TREES)
    answers = {
        MNIST_SVM: joblib.load(folder / MNIST_SVM).predict(image)[0],
        MNIST_TREES: trees.predict(image)[0],
    }
    wrong = [f"{name} for {answer}" for name, answer in answers.items() if answer != EXPECTED]
    return f"the documentation's image of {EXPECTED} is taken by {', '.join(wrong)}" * bool(wrong)


def digits_svm() -> SVC:
    """Trained on half of the digits, as scikit-learn's own example is, without shuffling."""
    digits = load_digits()
    half = len(digits.data) // 2
    return SVC(gamma=0.001, random_state=0).fit(digits.data[:half], digits.target[:half])


def digits_trees() -> XGBClassifier:
    """The same half of the digits: 20 rounds of one small tree a digit."""
    digits = load_digits()
    half = len(digits.data) // 2
    trees = XGBClassifier(n_estimators=20, max_depth=4, n_jobs=1, random_state=0)
    return trees.fit(digits.data[:half], digits.target[:half])


def cancer_trees() -> lightgbm.Booster:
    """The probability that a tumour is benign, by the 30 numbers of scikit-learn's data set."""
    cancer = load_breast_cancer()
    told = {
        "objective": "binary",
        "num_leaves": 7,
        "learning_rate": 0.3,
        "num_threads": 1,
        "seed": 0,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    return lightgbm.train(told, lightgbm.Dataset(cancer.data, cancer.target), num_boost_round=20)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])) or None)
