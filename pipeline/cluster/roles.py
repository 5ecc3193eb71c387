"""Which rank reads, which scores, and on what device: pure arithmetic, but for `take`.

Readers own shards from first byte to published file; a scorer owns a GPU and the model and nothing else. Both live
on one node. Without scorers every rank does both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.cluster import gpus
from pipeline.cluster.world import World
from pipeline.config import Compute


@dataclass(frozen=True, slots=True)
class Role:
    """What one rank does: it scores for ``clients``, or it reads."""

    device: str = ""  # where it scores: "cpu", "cuda:1"; "": it does not
    server: int | None = None  # the rank that scores for it; None: itself
    clients: tuple[int, ...] = ()

    @property
    def reads(self) -> bool:
        return not self.clients


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a rank sits: the ranks of its node, and the identities of the GPUs that it sees."""

    node: tuple[int, ...]
    gpus: tuple[str, ...] = ()


def take(world: World, compute: Compute) -> list[Role]:
    """The roles of all ranks, the same list on each. Every rank must call it."""
    seen = gpus.visible() if compute.device == "cuda" else ()
    seats = world.gather(Seat(world.node, seen))
    return world.bcast(deal(seats, compute.scorers, compute.device) if seats else [])


def deal(seats: Sequence[Seat], scorers: int | Literal["auto"], device: str) -> list[Role]:
    """One `Role` a rank. ``scorers`` is the number on each node; "auto": one a GPU with ``device`` "cuda", else none.

    No scorer is without a reader: a node of n ranks has n // 2 of them at most, a lone rank reads and scores.
    """
    roles = [Role()] * len(seats)
    for node in sorted({seat.node for seat in seats}):
        for rank, role in _of_node(node, seats, scorers, device).items():
            roles[rank] = role
    return roles


def _of_node(
    node: tuple[int, ...], seats: Sequence[Seat], scorers: int | Literal["auto"], device: str
) -> dict[int, Role]:
    sees = {rank: seats[rank].gpus for rank in node}
    offered = sorted({gpu for names in sees.values() for gpu in names}, key=lambda gpu: _first_look(gpu, sees))
    one_a_gpu = max(1, len(offered)) if device.startswith("cuda") else 0
    wanted = one_a_gpu if scorers == "auto" else scorers
    places = _places(sees, offered, min(wanted, len(node) // 2), device)
    if not places:
        return {rank: Role(_device(device, i, sees[rank])) for i, rank in enumerate(node)}
    servers = list(places)
    readers = [rank for rank in node if rank not in places]
    served = {rank: servers[i % len(servers)] for i, rank in enumerate(readers)}
    roles = {rank: Role(server=server) for rank, server in served.items()}
    for server, where in places.items():
        roles[server] = Role(where, clients=tuple(rank for rank, other in served.items() if other == server))
    return roles


def _first_look(gpu: str, sees: dict[int, tuple[str, ...]]) -> tuple[int, int]:
    """Index and rank at which ``gpu`` is seen first."""
    return min((names.index(gpu), rank) for rank, names in sees.items() if gpu in names)


def _places(sees: dict[int, tuple[str, ...]], offered: list[str], scorers: int, device: str) -> dict[int, str]:
    """Who scores, and where: each GPU in turn goes to the first rank that sees it and has none."""
    places: dict[int, str] = {}
    for i in range(scorers):
        gpu = offered[i % len(offered)] if offered else ""
        free = [rank for rank in sees if rank not in places]
        rank = next((rank for rank in free if gpu in sees[rank]), free[0])
        place = sees[rank].index(gpu) if gpu in sees[rank] else i
        places[rank] = _device(device, place, sees[rank])
    return places


def _device(device: str, place: int, seen: tuple[str, ...]) -> str:
    """ "cuda" with a number; anything else is what the configuration says."""
    return f"cuda:{place % len(seen)}" if device == "cuda" and seen else device
