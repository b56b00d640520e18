"""Musical states by name, on disk: what ``/perceivers/save``, ``recall``, ``states`` and ``delete`` are about."""

from __future__ import annotations

from pathlib import Path

from engine.codec import LONGEST_SILENCE
from engine.config import ModelConfig
from engine.events import STEPS_PER_SECOND
from engine.states import SUFFIX, StateError, is_state_name, load_state, save_state, state_path
from perceivers_live.performer.performer import SavedState

MOST_SILENCE = LONGEST_SILENCE / STEPS_PER_SECOND  # seconds
MOST_STATES = 100  # each is as large as the model's rings, 40 MB for the bundled one


class StateStore:
    """The states of one model (``fingerprint``) in a folder. Methods raise ``StateError``; they wait for the disk."""

    def __init__(self, folder: Path, config: ModelConfig, fingerprint: str) -> None:
        self._folder, self._config, self._fingerprint = folder, config, fingerprint

    def check(self, name: object) -> None:
        """Raises ``StateError`` if this can be no state's name, or if there is no room for another."""
        path = state_path(self._folder, name)
        if not path.exists() and len(list(self._folder.glob(f"*{SUFFIX}"))) >= MOST_STATES:
            raise StateError(f"{name}: there are {MOST_STATES} states in {self._folder}, as many as are kept; delete one")

    def names(self) -> list[str]:
        """Of what is kept, in alphabetical order; states of other models too."""
        found = sorted(path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}") if path.is_file())
        return [name for name in found if is_state_name(name)]

    def delete(self, name: object) -> None:
        path = state_path(self._folder, name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise StateError(f"{name}: there is no such state; there are: {', '.join(self.names()) or 'none'}") from None
        except OSError as error:
            raise StateError(f"{name}: cannot be deleted: {error.strerror or error}") from None

    def save(self, name: str, saved_state: SavedState) -> None:
        self.check(name)
        extra = {"seed": saved_state.seed, "silence": saved_state.silence}
        save_state(saved_state.snapshot, state_path(self._folder, name), model=self._fingerprint, **extra)

    def load(self, name: str) -> SavedState:
        snapshot, extra = load_state(state_path(self._folder, name), self._config, model=self._fingerprint)
        seed, silence = extra.get("seed"), extra.get("silence")
        if type(seed) is not int or not 0 <= seed < 1 << 32:
            raise StateError(f"{name}: its seed is {str(seed)[:40]!r}")
        if not isinstance(silence, float) or not 0 <= silence <= MOST_SILENCE:
            raise StateError(f"{name}: its silence is {str(silence)[:40]!r}")
        return SavedState(snapshot, seed, silence)
