"""Evaluation of a checkpoint: likelihood of held-out music, and similarity of generated music to real music. Table and JSON.

perceivers-live evaluate DATA --checkpoint runs/small/best --json figures.json
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from engine.checkpoint import load_model
from engine.engine import Engine
from engine.model import PerceiverS
from engine.runtimes import Runtime
from engine.runtimes.choose import open_runtime
from engine.runtimes.pytorch import TorchRuntime
from trainer import likelihood, overlap
from trainer.baselines import baseline
from trainer.copying import NgramIndex
from trainer.data import ALL, HELD_OUT, SPLITS, Corpus, DataError
from trainer.reading import Actions, actions_of
from trainer.samples import continue_music, prompt_of

CONTEXTS = (256, 1024, 4096, None)  # events of context; None: the whole windows
STREAMED = 4  # pieces that are streamed
PROMPT, CLIP = 10.0, 15.0  # seconds
MAX_RATE = 200.0  # events a second of a clip; pianists reach 70
Figures = dict[str, float | int | str | None]  # None: too few clips


def report(
    corpus: Corpus,
    checkpoint: Path,
    *,
    split: str = "test",
    pieces: int | None = None,
    quick: bool = False,
    clips: int = 40,
    seed: int = 0,
    json_file: Path | None = None,
) -> Figures:
    """Prints the tables of a split, or of ``all`` pieces, and returns their figures. Raises ``DataError`` if there are none.

    For ``all`` and ``train``, the baselines and the search for copies are left out, because they need a separate training split.
    """
    chosen = evenly_spaced(corpus.split(split), pieces)
    if not chosen:
        raise DataError(f"the data has no {split} pieces, but {_sizes(corpus)}; --split {ALL} takes them all")
    model = load_model(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine(_exact(checkpoint))
    figures = _likelihoods(corpus, chosen, {"split": split}, model, engine)
    if not quick:
        rng = np.random.default_rng(seed)
        figures |= _cuts(likelihood.cut_losses(model, corpus, chosen, CONTEXTS, rng))
        real, generated = _clips(corpus, chosen, engine, clips, rng)
        if real:
            figures |= _overlaps(real, generated, rng)
            figures |= _copies(corpus, real, generated) if split in HELD_OUT else {}
    figures = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in figures.items()}
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _sizes(corpus: Corpus) -> str:
    counts = {split: len(corpus.split(split)) for split in SPLITS}
    return ", ".join(f"{count} {split}" for split, count in counts.items() if count)


def _exact(checkpoint: Path) -> Runtime:
    """A float32 runtime, which agrees with the full forward. The runtimes for GPUs compute in half precision."""
    if torch.cuda.is_available():
        return TorchRuntime(checkpoint, "cuda", precision=torch.float32)
    return open_runtime("auto", checkpoint, steady=True)


def evenly_spaced(pieces: Sequence[int], count: int | None) -> list[int]:
    """``count`` pieces, evenly spaced from the first to the last; None: all pieces."""
    if count is None or count >= len(pieces):
        return list(pieces)
    return [pieces[i] for i in np.linspace(0, len(pieces) - 1, count).round().astype(int)]


def _likelihoods(corpus: Corpus, chosen: list[int], figures: Figures, model: PerceiverS, engine: Engine) -> Figures:
    names = ("unigram", "bigram") if figures["split"] in HELD_OUT else ()
    rows = {name: baseline(corpus, chosen, bigram=name == "bigram") for name in names}
    rows["model"] = best = likelihood.likelihood(model, corpus, chosen)
    few = evenly_spaced(chosen, STREAMED)
    streamed = likelihood.streamed_likelihood(engine, model, corpus, few).rates()["nats_per_event"]
    same = likelihood.likelihood(model, corpus, few).rates()["nats_per_event"]
    print(f"{figures['split']}: {len(chosen)} pieces, {best.events} events, {best.notes} notes, pedal as {corpus.pedal}")
    print(
        f"{'':10}{'nats/event':>12}{'nats/note':>12}{'nats/second':>12}{'nats/388-token':>16}{'wait':>8}{'action':>8}{'velocity':>9}"
    )
    for name, sums in rows.items():
        rates = sums.rates()
        fields = [value / sums.events for value in (sums.wait, sums.action, sums.velocity)]
        print(
            f"{name:10}{rates['nats_per_event']:12.4f}{rates['nats_per_note']:12.3f}{rates['nats_per_second']:12.2f}"
            f"{rates['nats_per_388_token']:16.4f}{fields[0]:8.3f}{fields[1]:8.3f}{fields[2]:9.3f}"
        )
    print(f"{len(few)} of these pieces, streamed ({engine.runtime.name}): {streamed:.4f} nats/event, full forward {same:.4f}")
    figures |= {"pieces": len(chosen), "pedal": corpus.pedal, **best.rates(), "events": best.events, "notes": best.notes}
    figures |= {"streaming_nats_per_event": streamed, "full_forward_nats_per_event": same}
    for name in names:
        figures |= {f"{name}_{key}": value for key, value in rows[name].rates().items()}
    return figures


def _cuts(cuts: dict[int | None, float]) -> Figures:
    if not cuts:
        print("shortened context: no piece is long enough")
        return {}
    names = {keep: "all" if keep is None else str(keep) for keep in cuts}
    print("nats/event with a context of the last ... events: " + ", ".join(f"{names[k]}: {v:.4f}" for k, v in cuts.items()))
    return {f"nats_per_event_context_{names[keep]}": value for keep, value in cuts.items()}


def _clips(
    corpus: Corpus, chosen: list[int], engine: Engine, count: int, rng: np.random.Generator
) -> tuple[list[Actions], list[Actions]]:
    """Continuations of prompts from held-out music: the real ones and the generated ones. Empty if all pieces are too short."""
    lengths = {piece: float(corpus.actions(piece).times[-1]) for piece in chosen}
    long = [piece for piece in chosen if lengths[piece] >= PROMPT + CLIP]
    if not long:
        print(f"continuations: no piece is {PROMPT + CLIP:.0f} s long")
        return [], []
    real, generated = [], []
    for _ in tqdm(range(count), desc="clips", unit="clip"):
        piece = long[int(rng.integers(len(long)))]
        begin = float(rng.uniform(0, lengths[piece] - PROMPT - CLIP))
        prompt = prompt_of(corpus, piece, begin, begin + PROMPT)
        real.append(actions_of(prompt_of(corpus, piece, begin + PROMPT, begin + PROMPT + CLIP)))
        generated.append(actions_of(continue_music(engine, prompt, CLIP, rng, max_rate=MAX_RATE)))
    return real, generated


def _overlaps(real: list[Actions], generated: list[Actions], rng: np.random.Generator) -> Figures:
    print(f"{len(real)} continuations of {CLIP:.0f} s after {PROMPT:.0f} s of held-out music, compared with the real ones:")
    print(f"{'':28}{'overlap area':>14}{'95 %':>16}{'real-real':>11}{'KLD':>8}{'95 %':>16}{'real-real':>11}")
    figures: Figures = {"clips": len(real)}
    for row in overlap.compare(real, generated, rng):
        print(
            f"{row.feature:28}{row.oa:14.3f}{f'{row.oa_low:.3f}-{row.oa_high:.3f}':>16}{row.ceiling_oa:11.3f}"
            f"{row.kld:8.3f}{f'{row.kld_low:.3f}-{row.kld_high:.3f}':>16}{row.ceiling_kld:11.3f}"
        )
        figures |= {f"oa_{row.feature}": row.oa, f"kld_{row.feature}": row.kld}
        figures |= {f"oa_ceiling_{row.feature}": row.ceiling_oa, f"kld_ceiling_{row.feature}": row.ceiling_kld}
    return figures


def _copies(corpus: Corpus, real: list[Actions], generated: list[Actions]) -> Figures:
    figures: Figures = {}
    index = NgramIndex(corpus.actions(piece) for piece in corpus.split("train"))
    for name, clips in (("generated", generated), ("real", real)):
        longest = [match.notes for match in index.longest(clips)]
        figures |= {f"copied_notes_{name}_median": float(np.median(longest)), f"copied_notes_{name}_max": max(longest)}
        print(f"longest run of notes found in the training set, {name}: median {np.median(longest):.0f}, at most {max(longest)}")
    return figures
