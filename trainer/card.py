"""The model card of a bundle: architecture, data, training and measured figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.config import ModelConfig

UNITS = (
    ("nats_per_event", "event"),
    ("nats_per_note", "note"),
    ("nats_per_second", "second"),
    ("nats_per_388_token", "token of 388"),
)


def card(
    config: ModelConfig, parameters: int, run: Mapping[str, Any], data: str, licence: str, figures: Sequence[Mapping[str, Any]]
) -> str:
    """The card as Markdown. ``run``: the saved ``progress`` and ``training`` of a run; ``figures``:
    output of ``evaluate --json``.
    """
    progress, training = run.get("progress", {}), run.get("training", {})
    scales = " and ".join(map(str, config.scales))
    lines = [
        "# Model card",
        "",
        f"A PerceiverS (arXiv 2411.08307) over piano performance events: {parameters / 1e6:.1f} million parameters, width",
        f"{config.width}, cross-attention over the last {scales} events, {config.layers} latent layers with a sliding window of",
        f"{config.window} events, {config.heads} heads on {config.kv_heads} key/value heads.",
        "",
        f"- **Data**: {data or 'not stated'}",
        f"- **Licence of these weights**: {licence or 'not stated'}",
    ]
    if progress and training:
        how = training["segmentation"]
        events, hours = progress["events"] / 1e6, progress["seconds"] / 3600
        before, spent = progress.get("earlier_events", 0) / 1e6, progress.get("earlier_seconds", 0.0) / 3600
        lines += [
            f"- **Training**: {progress['step']} steps of {training['batch']} examples, {events:.2f} million target events,",
            f"  {hours:.1f} hours of computing; peak learning rate {training['learning_rate']}, seed {training['seed']};",
            *([f"  started from a checkpoint that had seen {before:.2f} million in {spent:.1f} hours;"] if before else []),
            f"  {_augmentation(how)}.",
        ]
    lines.append("- **Intended use**: playing piano duets with a person. It was trained for no other instrument or style.")
    lines += [
        "- **Limits**: it can wander, repeat itself and end a phrase badly; it may reproduce short passages of its data.",
        "",
    ]
    for one in figures:
        baselines = [name for name in ("unigram", "bigram") if f"{name}_{UNITS[0][0]}" in one]  # --split all has none
        lines += [
            f"## Likelihood, {one['split']} split ({one['pieces']} performances, {one['events']} events, {one['notes']} notes)",
            "",
            " | ".join(["| nats per", *baselines, "this model |"]),
            "|---" * (len(baselines) + 2) + "|",
        ]
        for key, name in UNITS:
            figures_of = [f"{one[f'{baseline}_{key}']:.3f}" for baseline in baselines]
            lines.append(" | ".join([f"| {name}", *figures_of, f"**{one[key]:.3f}** |"]))
        note = "; the baselines are counted over events on the training split" if baselines else ""
        lines += ["", f"Printed by `perceivers-live evaluate`{note}."]
        lines += ["The 388 tokens are those of note-on, note-off, time shift and velocity."]
        if "streaming_nats_per_event" in one:
            streamed, full = one["streaming_nats_per_event"], one["full_forward_nats_per_event"]
            lines += [f"Some of these pieces, streamed event by event: {streamed:.4f} nats an event; in one forward: {full:.4f}."]
        lines += [""]
    return "\n".join(lines)


def _augmentation(segmentation: Mapping[str, Any]) -> str:
    """How the examples were varied at the end of the run."""
    parts = (
        (segmentation["transpose"], f"transposed by up to {segmentation['transpose']} semitones"),
        (segmentation["stretch"], f"stretched by up to {segmentation['stretch']:.0%}"),
        (segmentation["loudness"], f"louder or softer by up to {segmentation['loudness']} MIDI velocities"),
    )
    varied = ", ".join(text for amount, text in parts if amount)
    return f"examples at the end {varied or 'as recorded, not varied'}"
