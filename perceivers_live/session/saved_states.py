"""Named musical states on disk, for the commands ``save``, ``recall`` and ``delete`` and the query ``states``."""

from __future__ import annotations

from pathlib import Path

from engine.codec import LONGEST_SILENCE
from engine.config import ModelConfig
from engine.events import STEPS_PER_SECOND
from engine.states import SUFFIX, StateError, is_state_name, load_state, save_state, state_path
from perceivers_live.performer.performer import SavedState

MAX_SILENCE = LONGEST_SILENCE / STEPS_PER_SECOND  # seconds
MAX_STATES = 100  # each is as large as the model's key/value cache: 15 MB for the bundled model


class StateStore:
    """The saved states of one model (``fingerprint``) in a folder. Methods wait for the disk and raise ``StateError``."""

    def __init__(self, folder: Path, config: ModelConfig, fingerprint: str) -> None:
        self._folder, self._config, self._fingerprint = folder, config, fingerprint

    def check(self, name: object) -> None:
        """Raises ``StateError`` if the name is invalid, or if it is new and there are already ``MAX_STATES`` states."""
        path = state_path(self._folder, name)
        if not path.exists() and len(list(self._folder.glob(f"*{SUFFIX}"))) >= MAX_STATES:
            raise StateError(f"{name}: {self._folder} already has {MAX_STATES} states, the maximum; delete one")

    def names(self) -> list[str]:
        """The names of all states in alphabetical order, including those of other models; none if the folder cannot be read."""
        try:
            found = sorted(path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}") if path.is_file())
        except OSError:
            return []
        return [name for name in found if is_state_name(name)]

    def delete(self, name: object) -> None:
        """Deletes a state."""
        path = state_path(self._folder, name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise StateError(f"{name}: there is no such state; there are: {', '.join(self.names()) or 'none'}") from None
        except OSError as error:
            raise StateError(f"{name}: cannot be deleted: {error.strerror or error}") from None

    def save(self, name: str, saved_state: SavedState) -> None:
        """Writes a state; replaces one of the same name."""
        self.check(name)
        extra = {"seed": saved_state.seed, "silence": saved_state.silence}
        save_state(saved_state.snapshot, state_path(self._folder, name), model=self._fingerprint, **extra)

    def load(self, name: str) -> SavedState:
        """Reads a state of this model."""
        snapshot, extra = load_state(state_path(self._folder, name), self._config, model=self._fingerprint)
        seed, silence = extra.get("seed"), extra.get("silence")
        if type(seed) is not int or not 0 <= seed < 1 << 32:
            raise StateError(f"{name}: its seed is {str(seed)[:40]!r}")
        if not isinstance(silence, float) or not 0 <= silence <= MAX_SILENCE:
            raise StateError(f"{name}: its silence is {str(silence)[:40]!r}")
        return SavedState(snapshot, seed, silence)
