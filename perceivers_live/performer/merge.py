"""What the human and the machine did, in the order in which it sounded.

The human is heard of late: while the performer was busy the player went on with what was left of the plan. So the machine's
events since then are told anew, each after what it followed. Their order is known by how many had sounded when the human acted;
times would not do (each side has its own offset), nor would positions, which the telling itself changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.events import REST, Timed
from perceivers_live.performer.turns import MachineEvent
from perceivers_live.player.player import Standing


class Played(NamedTuple):
    """What the human did, and what the player did for it at once."""

    actions: Sequence[Timed] = ()
    released: Sequence[Timed] = ()  # by the machine: the keys that the human struck, or everything
    silenced: bool = False  # everything
    passed: int = 0  # events that the machine had sounded before that, ever


class Merged(NamedTuple):
    """What follows position ``base`` in the history. The order of the first ``past`` actions is final: what the human did later
    comes after them. ``machines``: which of them are the machine's, by index, and their positions until now.
    """

    base: int
    actions: list[Timed]
    past: int
    machines: dict[int, int]


def merge(
    played: Sequence[Played],
    since: Sequence[Timed],
    own: Sequence[MachineEvent],
    standing: Standing,
    timed: Callable[[MachineEvent], Timed],
) -> Merged:
    """The human's actions and what was released for them, among the machine's events; then ``since``, then the plan.

    ``own``: the machine's events that may still be told anew, oldest first; ``standing``: how far they got, now; ``timed``: when
    and how one of them is heard.
    """
    own = [one for one in own if one.position <= standing.last and one.event.action != REST]
    done = sum(one.position <= standing.sounded for one in own)
    before = done - standing.passed  # how many of these had sounded = before + how many had ever
    first = known = max(0, before + min((part.passed for part in played), default=standing.passed))
    actions: list[Timed] = []
    machines: dict[int, int] = {}

    def machine(until: int) -> None:
        nonlocal known
        while known < until:
            machines[len(actions)] = own[known].position
            actions.append(timed(own[known]))
            known += 1

    for part in played:
        machine(before + part.passed)
        actions += [*part.released, *part.actions]
    past = len(actions)
    if since:
        machine(done)
        actions += since
        past = len(actions)
    machine(len(own))
    return Merged(own[first - 1].position if first else 0, actions, past, machines)
