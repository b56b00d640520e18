"""The events of a performance, encoded only where they are needed: a training example takes a few thousand of them."""

from __future__ import annotations

import numpy as np

from engine.codec import surplus
from engine.events import END, MAX_WAIT, NO_VELOCITY, NOTE_OFF, REST, START, STEPS_PER_SECOND
from engine.sounding import ages_after
from trainer.reading import Actions


class EncodedPiece:
    """``encode_arrays(*piece, end=True)`` by index, with every silence shortened as in live playing.

    ``rows``: indices of events, ascending; 0 is START, ``len(piece) - 1`` is END.
    """

    def __init__(self, piece: Actions) -> None:
        """``piece`` has at least one action."""
        times = piece.times - piece.times[0]
        times *= STEPS_PER_SECOND
        times += 0.5
        gaps = np.diff(times.astype(np.int32), prepend=np.zeros(2, np.int32), append=np.int32(times[-1]))
        gaps -= surplus(gaps)
        rests = np.maximum(gaps - 1, 0) // MAX_WAIT
        # With START and END, but without the rests:
        self._waits, self._steps = gaps - rests * MAX_WAIT, np.cumsum(gaps, dtype=np.int32)
        self._actions = np.pad(piece.actions.astype(np.int16), 1, constant_values=(START, END))
        self._velocities = np.pad(piece.velocities.astype(np.int16), 1)
        self._index = np.cumsum(rests + 1, dtype=np.int32) - 1

    def __len__(self) -> int:
        return int(self._index[-1]) + 1

    def at(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The events at ``rows`` [R, 3] int16, the ages after them [R, AGES] (see ``ages_of``), their times in 10 ms steps."""
        newest = np.searchsorted(self._index, rows, side="right") - 1  # event that is not a rest
        action, velocity = self._actions[newest], self._velocities[newest]
        bins = np.where(action < NOTE_OFF, velocity >> 2, NO_VELOCITY)
        events = np.stack((self._waits[newest], action, bins), axis=1, dtype=np.int16)
        rests = rows - self._index[newest]  # since that event
        events[rests > 0] = MAX_WAIT, REST, NO_VELOCITY
        times = self._steps[newest] + rests * MAX_WAIT
        return events, ages_after(self._actions, self._steps, newest + 1, times), times
