"""Keeping the pace of the call: how much denser or sparser than left alone the reply has to go on.

The model alone drifts: a few fast notes make it faster still. A listening partner keeps to what it was given, roughly. So the
notes a second of the reply's last seconds are held against the call's, and the difference leans on the odds of the waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.events import STEPS_PER_SECOND, Event

MEMORY = 3.0  # seconds: what lies longer ago counts less and less
LIMIT = 1.0  # of the correction, in the units of ``density``


def correction(reply: Sequence[Event], call: float) -> float:
    """What to add to ``density`` so that a reply comes back to the call's notes a second; 0 if it is there already.

    ``reply``: its events so far. It is taken to have begun at the call's own pace, so the first notes decide nothing.
    """
    notes, seconds = call * MEMORY, MEMORY
    for event in reply:
        passed = event.wait / STEPS_PER_SECOND
        kept = math.exp(-passed / MEMORY)
        notes, seconds = notes * kept + event.is_note_on, seconds * kept + passed
    return min(max(math.log(call * seconds / max(notes, 1e-3)), -LIMIT), LIMIT)
