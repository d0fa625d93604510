"""What runtimes there are, as whoever starts and stops their nodes says: written as a whole."""

from collections.abc import Iterable, Sequence

from mesh.core.ids import RuntimeName
from mesh.core.records import RuntimeRecord
from mesh.registry.port import MAX_OPS, Delete, Op, Put, Registry
from mesh.wire import records
from mesh.wire.documents import InvalidManifest, load_documents
from mesh.wire.runtime_resource import parse_runtime_state
from router.steps import Steps


async def set_runtimes(texts: Iterable[str], steps: Steps) -> None:
    """Writes what differs; returns once this node acts on it. Raises InvalidManifest."""
    wanted = {records.runtime_key(it.name): records.encode(it) for it in _parsed(texts)}
    for ops in _portions(await _differences(steps.registry, wanted)):
        await steps.seen(await steps.registry.commit(ops))


def _parsed(texts: Iterable[str]) -> list[RuntimeRecord]:
    found: dict[RuntimeName, RuntimeRecord] = {}
    problems: list[str] = []
    for number, text in enumerate(texts):
        try:
            for document in load_documents(text):
                record = parse_runtime_state(document)
                if record is not None and record.name in found:
                    problems.append(f"json[{number}].metadata.name: given twice")
                elif record is not None:
                    found[record.name] = record
        except InvalidManifest as error:
            problems += [f"json[{number}].{problem}" for problem in error.problems]
    if problems:
        raise InvalidManifest(tuple(problems))
    return list(found.values())


async def _differences(registry: Registry, wanted: dict[str, bytes]) -> list[Op]:
    there = {it.key: it.value for it in (await registry.list(records.RUNTIMES)).entries}
    wishes = (await registry.list(records.WANTED)).entries
    ops: list[Op] = [Put(key, value) for key, value in wanted.items() if there.get(key) != value]
    ops += [Delete(key) for key in there if key not in wanted]
    return ops + [Delete(wish.key) for wish in wishes if _runtime_of(wish.key) not in wanted]


def _runtime_of(wish: str) -> str:
    return records.RUNTIMES + wish.removeprefix(records.WANTED)


def _portions(ops: Sequence[Op]) -> Iterable[Sequence[Op]]:
    return (ops[start : start + MAX_OPS] for start in range(0, len(ops), MAX_OPS))
