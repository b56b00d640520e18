"""The result of a check of ``perceivers-live doctor``."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """``good``: True = passed, False = needs attention, None = information only. ``advice``: what the user can do, or empty."""

    name: str
    good: bool | None
    text: str
    advice: str = ""
