"""Merges the human's actions into the machine's events, in the order in which they sounded.

The performer learns of the human's actions late: while it was busy, the player continued with the rest of the plan. So the
history since then is rewritten, with each action after the event that it followed. The order is defined by the serial number of
the machine's last event that had sounded at the time of the human's action. Times cannot define it, because input and output
have different offsets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from engine.events import REST, Timed
from perceivers_live.performer.turns import MachineEvent


class Played(NamedTuple):
    """Actions of the human, and how the player responded to them immediately."""

    actions: Sequence[Timed] = ()
    released: Sequence[Timed] = ()  # the machine's releases: of the keys that the human struck, or of everything
    silenced: bool = False  # whether the machine's turn was interrupted
    after: int = 0  # serial number of the machine's last event that had sounded before


class Merged(NamedTuple):
    """The new history after position ``base``. The order of the first ``final`` actions is final: later actions of the human come
    after them.
    """

    base: int
    actions: list[Timed | MachineEvent]
    final: int


def merge(played: Sequence[Played], since: Sequence[Timed], own: Sequence[MachineEvent], last: int) -> Merged:
    """Merges the human's actions and the resulting releases with the machine's events. The rest of the plan follows, and then
    ``since``: the releases that ended the plan.

    ``own``: the machine's events that can still be rewritten, oldest first. ``last``: serial number of the last of them that has
    sounded or will sound.
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
    final = len(actions)
    actions += [*waiting, *since]
    return Merged(base, actions, len(actions) if since else final)
