"""What the human and the machine did, in the order in which it sounded.

The human is heard of late: while the performer was busy the player went on with what was left of the plan. So the machine's
events since then are told anew, each after what it followed. Their order is known by the serial number of the last of them that
had sounded when the human acted; times would not do, since each side has its own offset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from engine.events import REST, Timed
from perceivers_live.performer.turns import MachineEvent


class Played(NamedTuple):
    """What the human did, and what the player did for it at once."""

    actions: Sequence[Timed] = ()
    released: Sequence[Timed] = ()  # by the machine: the keys that the human struck, or everything
    silenced: bool = False  # everything
    after: int = 0  # serial number of the machine's last event that had sounded before that


class Merged(NamedTuple):
    """What follows position ``base`` in the history. The order of the first ``past`` actions is final: what the human did later
    comes after them.
    """

    base: int
    actions: list[Timed | MachineEvent]
    past: int


def merge(played: Sequence[Played], since: Sequence[Timed], own: Sequence[MachineEvent], last: int) -> Merged:
    """The human's actions and what was released for them, among the machine's events; then the plan, and then ``since``, which
    ended the plan.

    ``own``: the machine's events that may still be told anew, oldest first; ``last``: the serial number of the last of them that
    sounded or is going to.
    """
    waiting = deque(one for one in own if one.serial <= last and one.event.action != REST)
    base = 0
    while waiting and waiting[0].serial <= played[0].after:
        base = waiting.popleft().position
    actions: list[Timed | MachineEvent] = []
    for part in played:
        while waiting and waiting[0].serial <= part.after:
            actions.append(waiting.popleft())
        actions += [*part.released, *part.actions]
    past = len(actions)
    actions += [*waiting, *since]
    return Merged(base, actions, len(actions) if since else past)
