"""Rendezvous order: for each key an order of the nodes that all nodes compute alike.

Nodes take turns at being first, key by key; when one leaves, the order of the others stays. It says
who acts first, and shares models between nodes that are otherwise equal.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from mesh.core.ids import NodeId

MASK = (1 << 64) - 1
# Odd, with bits all over: the multiplier of splitmix64's last step.
MULTIPLIER = 0x94D049BB133111EB
REMEMBERED = 1 << 14


def rendezvous(key: str, nodes: Iterable[NodeId]) -> list[NodeId]:
    """The nodes in the order of this key, the same for any order of `nodes`."""
    salt = _hash(key)
    return sorted(nodes, key=lambda node: (-_score(salt, node), node))


def first(key: str, nodes: Iterable[NodeId]) -> NodeId:
    """The first in rendezvous order; of no nodes, a ValueError."""
    salt = _hash(key)
    return min(nodes, key=lambda node: (-_score(salt, node), node))


def _score(salt: int, node: NodeId) -> int:
    """Mixes two hashes; hashing each pair would cost ten times as much, over many nodes."""
    mixed = (salt ^ _node_hash(node)) * MULTIPLIER & MASK
    return (mixed ^ mixed >> 31) * MULTIPLIER & MASK


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


@lru_cache(maxsize=REMEMBERED)
def _node_hash(node: NodeId) -> int:
    return _hash(node)
