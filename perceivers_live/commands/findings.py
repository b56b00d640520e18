"""What a check of ``perceivers-live doctor`` finds."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """``good``: True, False = needs attention, None = just so. ``advice`` in plain words, where there is any."""

    name: str
    good: bool | None
    text: str
    advice: str = ""
