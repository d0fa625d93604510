"""Kubernetes quantities, such as 500m, 1Gi or 1e3: the numbers in a container's resources."""

import math
import re
from decimal import Decimal

QUANTITY = re.compile(
    r"([+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30}))([eE][+-]?\d{1,2}|[A-Za-z]{0,2})",
    re.ASCII,
)
SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
# Kubernetes keeps quantities in 64 bits.
MOST = Decimal(2**63 - 1)


def parse_quantity(text: str) -> Decimal:
    """The number that a quantity stands for; ValueError where it is none or beyond 64 bits."""
    match = QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(_problem(text))
    number, suffix = match.groups()
    if suffix in SUFFIXES:
        value = Decimal(number) * SUFFIXES[suffix]
    elif suffix[1:]:
        value = _scaled(text, number, suffix)
    else:
        raise ValueError(_problem(text))
    if abs(value) > MOST:
        raise ValueError(f"{text[:40]!r} is too large")
    return value


def whole_bytes(text: str) -> int:
    """A quantity of memory in bytes, rounded up as Kubernetes does."""
    return math.ceil(parse_quantity(text))


def _scaled(text: str, number: str, exponent: str) -> Decimal:
    if exponent[0] not in "eE" or exponent[1:].isalpha():
        raise ValueError(_problem(text))
    return Decimal(number + exponent)


def _problem(text: str) -> str:
    return f"{text[:40]!r} is no quantity such as 500m, 2 or 1Gi"
