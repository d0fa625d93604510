"""Makes the models of the walk-through: `make_example_models.py FOLDER`.

It runs in MLServer's environment, which has scikit-learn; the package itself needs none of it. The
same libraries give the same bytes each time.
"""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.svm import SVC

MNIST_SVM = "sklearn/mnist-svm.joblib"
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
    path = folder / MNIST_SVM
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(digits_svm(), path)
    answer = joblib.load(path).predict([[pixel for row in DOCUMENTED for pixel in row]])[0]
    if answer != EXPECTED:
        return f"{path} takes the documentation's image for {answer}, not {EXPECTED}"
    return ""


def digits_svm() -> SVC:
    """Trained on half of the digits, as scikit-learn's own example is, without shuffling."""
    digits = load_digits()
    half = len(digits.data) // 2
    return SVC(gamma=0.001, random_state=0).fit(digits.data[:half], digits.target[:half])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])) or None)
