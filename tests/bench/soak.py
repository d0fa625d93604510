"""A randomized run of faults over a mesh under traffic: `make soak SECONDS=60 SEED=1`.

Nothing may be lost but what the rules excuse: what was in flight on a node, a runtime or a
connection when it broke, or was sent to it before it could be known. Once all is mended and quiet,
the store, what each node knows and what the runtimes really hold must agree. The last line sums up;
the exit code is not zero where anything was lost, or does not agree.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from tests.bench import soak_plan as plans
from tests.bench.soak_plan import Step
from tests.bench.soak_rules import Ledger, Result, misanswered
from tests.support.mesh_checks import counts, until_quiet
from tests.support.mesh_client import Asked, MeshClient
from tests.support.mesh_stand import MeshNode, MeshStand, mesh_stand

MB = 1_000_000
NODES = 3
PREDICTORS = 20
RPS = 60.0
CROWD_SIZE = 50
ASK_S = 20.0
QUIET_S = 60.0


@dataclass
class Soak:
    """One run. `known`: the Predictors that may be asked for; `paths`: what each was given last."""

    stand: MeshStand
    client: MeshClient
    ledger: Ledger
    done: Counter[str] = field(default_factory=Counter)
    known: list[str] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)
    is_store_up: asyncio.Event = field(default_factory=asyncio.Event)
    settling: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    # The lanes.

    async def follow(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            await asyncio.sleep(self.started_s + step.at_s - time.monotonic())
            print(f"{time.monotonic() - self.started_s:6.1f} / {step}", flush=True)
            self.done[step.kind] += 1
            await self._do(step)

    async def _do(self, step: Step) -> None:
        if step.kind in plans.NODE_FAULTS:
            await self._node_fault(step)
        elif step.kind in (plans.OUTAGE, plans.WIPE):
            await self._outage(step)
        else:
            await self._change(step)

    async def _node_fault(self, step: Step) -> None:
        node = self.stand.nodes[step.node]
        self.ledger.fault(step.kind, time.monotonic())
        match step.kind:
            case plans.KILL:
                node.kill()
                await asyncio.sleep(step.for_s)
            case plans.FREEZE:
                node.freeze()
                await asyncio.sleep(step.for_s)
                node.resume()
            case plans.CUT:
                await self._cut(node, step.for_s)
            case plans.RESTART:
                node.terminate()
                await node.until_ended(90)
            case plans.KILL_RUNTIME:
                assert node.runtime is not None
                node.runtime.kill()
                node.runtime.start()
            case plans.FORGET:
                await self._forget(node)
            case plans.JOIN:
                await self._join()
        await revive(node)

    async def _cut(self, node: MeshNode, seconds: float) -> None:
        assert self.stand.cuts is not None
        self.stand.cuts.cut(node, *(other for other in self.stand.nodes if other is not node))
        await asyncio.sleep(seconds)
        self.stand.cuts.heal()

    async def _forget(self, node: MeshNode) -> None:
        """The runtime loses a model, and says so to nobody."""
        assert node.runtime is not None
        held = sorted(await node.runtime.index())
        await node.runtime.change(lose=held[:1])

    async def _join(self) -> None:
        joining = self.stand.add()
        await revive(joining)
        await asyncio.sleep(3)
        joining.terminate()
        await joining.until_ended(90)
        await joining.close()
        self.stand.nodes.remove(joining)

    async def _outage(self, step: Step) -> None:
        self.is_store_up.clear()
        self.stand.etcd.kill()
        if step.kind == plans.WIPE:
            self.stand.etcd.wipe()
        await asyncio.sleep(step.for_s)
        await asyncio.to_thread(self.stand.etcd.start)
        await asyncio.sleep(1)
        self.is_store_up.set()

    async def _change(self, step: Step) -> None:
        """Not while the store is away: then nothing can be changed."""
        await self.is_store_up.wait()
        with contextlib.suppress(grpc.aio.AioRpcError):  # a fault hit the change itself
            match step.kind:
                case plans.CREATE | plans.UPDATE:
                    await self._apply(step.name, step.path)
                case plans.TO_AND_FRO:
                    before = self.paths.get(step.name, step.path)
                    for path in (step.path, before, step.path):
                        await self._apply(step.name, path)
                case plans.BREAK:
                    await self._apply(step.name, f"{step.path},fail=on purpose")
                    await self._apply(step.name, step.path)
                case plans.DELETE:
                    await self._delete(step.name)
                case plans.CROWD:
                    await self.client.ask_at_once(step.name, CROWD_SIZE, ASK_S)

    async def _apply(self, name: str, path: str) -> None:
        self.ledger.change(name)
        self.ledger.confirm(name, await self.stand.apply(name, path))
        self.paths[name] = path
        if name not in self.settling or self.settling[name].done():
            self.settling[name] = asyncio.get_running_loop().create_task(self._settle(name))

    async def _settle(self, name: str) -> None:
        """From when it is done on, nothing older may answer."""
        latest = ""
        deleting = self.ledger.deleting_s
        while latest != self.stand.versions.latest(name) and name not in deleting:
            latest = self.stand.versions.latest(name)
            with contextlib.suppress(AssertionError):
                await self.stand.until_settled(name, 10.0)
        if name not in self.known and name not in deleting:
            self.known.append(name)

    async def _delete(self, name: str) -> None:
        self.ledger.delete(name, time.monotonic())
        if name in self.known:
            self.known.remove(name)
        await self.stand.delete(name)
        self.ledger.confirm_deleted(name)

    # At the end.

    async def ask_all(self) -> list[tuple[str, Asked]]:
        """Each Predictor at each node, also those that were deleted."""
        answers = []
        for node in self.stand.nodes:
            async with MeshClient([node.public], self.stand.versions) as client:
                answers += [(node.public, await client.ask(n)) for n in self.ledger.names()]
        return answers

    async def problems(self) -> list[str]:
        """What does not agree; waits until all does, for a while."""
        try:
            await self.ask_all()  # what a runtime lost is noticed when it is used
            picture = await until_quiet(self.stand, QUIET_S)
        except AssertionError as error:
            return [str(error)]
        answers = await self.ask_all()
        return [*self.ledger.amiss(picture), *misanswered(picture, answers)]

    async def close(self) -> None:
        for task in self.settling.values():
            task.cancel()
        if self.settling:
            await asyncio.wait([*self.settling.values()])


async def revive(node: MeshNode) -> None:
    """As a supervisor does: a node that ends is started again, until it is ready."""
    if node.runtime is not None and node.runtime.process is not None:
        await asyncio.to_thread(node.runtime.until_ready)
    deadline_s = time.monotonic() + 90
    while True:
        if not node.is_running:
            node.start()
        with contextlib.suppress(AssertionError):
            if await node.is_ready():
                return
        assert time.monotonic() < deadline_s, f"{node.public} is not ready: {node.tail()}"
        await asyncio.sleep(0.2)


async def soak(seconds: float, seed: int, folder: Path, without: Sequence[str] = ()) -> Result:
    """Prints what it does and what became of it."""
    plan = plans.plan(seconds, seed, nodes=NODES, names=PREDICTORS)
    lanes = [
        tuple(step for step in lane if step.kind not in without)
        for lane in (plan.node_faults, plan.outages, plan.changes)
    ]
    settings = {"capacity_bytes": 10 * MB, "traits": "load=0.05", "is_cuttable": True}
    async with mesh_stand(folder, nodes=NODES, **settings) as stand:
        names = [f"p{number}" for number in range(PREDICTORS)]
        ledger = Ledger()
        for number, name in enumerate(names):
            ledger.confirm(name, await stand.apply(name, f"version={number}"))
        for name in names:
            await stand.until_settled(name)
        async with MeshClient(stand.publics, stand.versions) as client:
            run = Soak(stand, client, ledger, known=names)
            run.is_store_up.set()
            choose = random.Random(seed)
            try:
                async with (
                    client.traffic(lambda: choose.choice(run.known), RPS, timeout_s=ASK_S),
                    asyncio.TaskGroup() as group,
                ):
                    for lane in lanes:
                        group.create_task(run.follow(lane))
            finally:
                await run.close()
            print("--- all is mended: waiting until it is quiet", flush=True)
            problems = await run.problems()
            counted = await counts(stand)
            if counted["without_room"]:
                problems.append(f"{counted['without_room']} loads for which there was no memory")
            lost = client.lost_but_for(lambda asked: bool(ledger.excuse(asked)))
            _report(run, lost, problems)
            faults = sum(run.done[k] for k in (*plans.NODE_FAULTS, plans.OUTAGE, plans.WIPE))
            return Result(
                requests=len(client.asked),
                lost=len(lost),
                excused=len(client.lost) - len(lost),
                faults=faults,
                changes=run.done.total() - faults,
                loads=counted["loads"],
                disagreements=len(problems),
                seconds=seconds,
                seed=seed,
            )


def _report(run: Soak, lost: list[Asked], problems: list[str]) -> None:
    print("done:", ", ".join(f"{kind} {count}" for kind, count in run.done.most_common()))
    excuses = Counter(run.ledger.excuse(asked) for asked in run.client.lost)
    print("lost and excused:", {kind: count for kind, count in excuses.items() if kind})
    print(run.client.summary())
    for asked in lost[:30]:
        at_s = asked.start_s - run.started_s
        print(f"LOST at {at_s:.3f} s: {asked}")
    for problem in problems:
        print(f"WRONG: {problem}")


Run = Callable[[float, int, Path, Sequence[str]], Awaitable[Result]]


def main(arguments: Sequence[str] | None = None, run: Run = soak) -> int:
    """The exit code; `run` is another one in tests."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for logs; kept where it fails")
    parser.add_argument(
        "--without", action="append", default=[], help="a kind of step to leave out, such as `kill`"
    )
    told = parser.parse_args(arguments)
    folder = told.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"logs in {folder}")

    async def running() -> Result:
        return await run(told.seconds, told.seed, folder, told.without)

    result = asyncio.run(running())
    print(result, flush=True)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
