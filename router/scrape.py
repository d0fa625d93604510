"""What a scrape reads: the counts of this node, and what is read off it at that moment."""

import asyncio
from collections.abc import Callable, Mapping

from mesh.agent.engine import Node
from mesh.core.ids import ModelId
from mesh.core.records import CopyState
from mesh.ops.clock import monotonic_s, wall_s
from router.waiting import WaitingRoom

AT_ONCE = 1_000


class Scrape:
    """`text` is called for each scrape; `in_flight` says how many requests of clients are."""

    def __init__(self, node: Node, waiting: WaitingRoom, in_flight: Callable[[], int]) -> None:
        self._node = node
        self._waiting = waiting
        self._in_flight = in_flight

    async def text(self) -> bytes:
        """In Prometheus' form."""
        metrics = self._node.holdings.metrics
        metrics.gauges = {**await self._of_the_mesh(), **self._of_the_node()}
        return metrics.text()

    async def _of_the_mesh(self) -> Mapping[str, float]:
        view = self._node.view
        loaded: set[ModelId] = set()
        failed: set[ModelId] = set()
        for number, copy in enumerate(list(view.every_copy())):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # requests go on meanwhile
            if copy.state is CopyState.LOADED:
                loaded.add(copy.model)
            elif copy.state is CopyState.FAILED:
                failed.add(copy.model)
        return {
            "modelmesh_models_managed_total": len(view.models),
            "modelmesh_models_loaded_total": len(loaded),
            "modelmesh_models_with_failure_total": len(failed),
        }

    def _of_the_node(self) -> Mapping[str, float]:
        cache = self._node.holdings.room.cache
        used_s = cache.oldest_use_s()
        age_s = 0.0 if used_s is None else monotonic_s() - used_s
        share = cache.used_bytes / cache.capacity_bytes if cache.capacity_bytes else 0.0
        return {
            "modelmesh_instance_models_total": sum(copy.is_loaded for copy in self._node.holdings),
            "modelmesh_instance_capacity_bytes": cache.capacity_bytes,
            "modelmesh_instance_used_bytes": cache.used_bytes,
            "modelmesh_instance_used_bps": round(share * 10_000),
            "modelmesh_instance_lru_seconds": 0.0 if used_s is None else wall_s() - age_s,
            "modelmesh_instance_lru_age_seconds": age_s,
            "wml_requests_waiting": self._waiting.waiting,
            "wml_requests_in_flight": self._in_flight(),
        }
