"""Musical states by name, on disk: ``/perceivers/save name`` and ``/perceivers/recall name``."""

from __future__ import annotations

from pathlib import Path

from engine.config import ModelConfig
from engine.states import StateError, load_state, save_state, state_path
from perceivers_live.performer import Memory


class Memories:
    """The states of one model (``fingerprint``) in a folder. Methods raise ``StateError``; they wait for the disk."""

    def __init__(self, folder: Path, config: ModelConfig, fingerprint: str) -> None:
        self._folder, self._config, self._fingerprint = folder, config, fingerprint

    def check(self, name: object) -> None:
        """Raises ``StateError`` if this can be no state's name."""
        state_path(self._folder, name)

    def save(self, name: str, memory: Memory) -> None:
        save_state(memory.snapshot, state_path(self._folder, name), model=self._fingerprint, seed=memory.seed)

    def load(self, name: str) -> Memory:
        snapshot, extra = load_state(state_path(self._folder, name), self._config, model=self._fingerprint)
        seed = extra.get("seed")
        if not isinstance(seed, int) or not 0 <= seed < 1 << 32:
            raise StateError(f"{name}: its seed is {str(seed)[:40]!r}")
        return Memory(snapshot, seed)
