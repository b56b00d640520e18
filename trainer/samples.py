"""Samples during training: the model continues a held-out performance; written as MIDI and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from engine.codec import decode, encode_arrays
from engine.config import ModelConfig
from engine.engine import Engine
from engine.events import NOTE_OFF, PITCHES, STEPS_PER_SECOND, SUSTAIN_DOWN, SUSTAIN_UP, Event, Timed, subject
from engine.midi import MessageReader, message_of
from engine.midi_file import write_file
from engine.model import PerceiverS
from engine.runtimes.pytorch import TorchRuntime
from engine.sampling import SamplingControls, sampling_bias
from trainer.data import Corpus

PROMPT, LENGTH = 8.0, 16.0  # seconds
MAX_RATE = 40.0  # events a second
LOWEST, HIGHEST = 21, 108
WITHOUT_PENALTY = SamplingControls(variety=0.0)  # no penalty for repetitions
COLOURS = ((224, 130, 40), (40, 120, 210))


def prompt_of(corpus: Corpus, piece: int, begin: float, end: float) -> list[Timed]:
    """The actions of a performance from ``begin`` to ``end`` seconds, without releases of keys and
    pedal from before ``begin``.
    """
    times, actions, velocities = corpus.actions(piece)
    reader = MessageReader()
    timed: list[Timed] = []
    for i in range(int(np.searchsorted(times, begin)), int(np.searchsorted(times, end))):
        timed += reader.feed(float(times[i]) - begin, message_of(int(actions[i]), int(velocities[i])))
    return timed


def continue_music(
    engine: Engine, prompt: Sequence[Timed], seconds: float, rng: np.random.Generator, *, max_rate: float = MAX_RATE
) -> list[Timed]:
    """The engine's continuation of ``prompt``, with times of the prompt's clock. Keys and pedal that are down at its end are not
    released. It ends early if it has more than ``max_rate`` events a second on average, so that an untrained model finishes.
    """
    engine.forget()
    if prompt:
        columns = zip(*prompt, strict=True)
        events = encode_arrays(*(np.array(column) for column in columns))
        engine.absorb([Event(*map(int, row)) for row in events[1:]])
    origin = prompt[0].time if prompt else 0.0
    played: list[Event] = []
    begin = engine.step
    limit = begin + round(seconds * STEPS_PER_SECOND)
    while engine.step < limit and len(played) < max_rate * seconds:
        held = engine.sounding.held().tolist()
        event = engine.decide(sampling_bias(engine.sounding, WITHOUT_PENALTY, rng, own=held, own_pedal=engine.sounding.pedal))
        if engine.step + event.wait >= limit:
            break
        engine.absorb([event])
        played.append(event)
    return list(decode(played, origin + begin / STEPS_PER_SECOND))


def write_sample(weights: dict[str, Tensor], config: ModelConfig, corpus: Corpus, stem: Path, *, seed: int) -> None:
    """Writes ``stem``.mid and ``stem``.png: the opening of a validation piece and the model's continuation."""
    if config.mask == "block":
        return  # a model with a block mask cannot stream
    model = PerceiverS(config)
    model.load_state_dict(weights)
    piece = corpus.split("validation")[0]
    prompt = prompt_of(corpus, piece, 0.0, PROMPT)
    engine = Engine(TorchRuntime(model))
    reply = continue_music(engine, prompt, LENGTH, np.random.default_rng(seed))
    end = max([PROMPT, *(one.time for one in reply)]) + 1.0
    reply += [Timed(end, NOTE_OFF + pitch) for pitch in engine.sounding.held().tolist()]
    reply += [Timed(end, SUSTAIN_UP)] if engine.sounding.pedal else []
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_file(stem.with_suffix(".mid"), [("prompt", prompt), ("model", reply)])
    picture([prompt, reply]).save(stem.with_suffix(".png"))


def picture(parts: Sequence[Sequence[Timed]], *, width: int = 1200, row: int = 5) -> Image.Image:
    """A piano roll: time to the right, pitch upwards, louder is darker; below it the pedal."""
    height = (HIGHEST - LOWEST + 1) * row
    image = Image.new("RGB", (width, height + 2 * row), "white")
    pen = ImageDraw.Draw(image)
    last = max((one.time for part in parts for one in part), default=0.0)
    first = min((one.time for part in parts for one in part), default=0.0)
    scale = (width - 1) / max(last - first, 0.01)
    for pitch in range(LOWEST, HIGHEST + 1):
        if pitch % 12 in (1, 3, 6, 8, 10):
            top = (HIGHEST - pitch) * row
            pen.rectangle((0, top, width, top + row - 1), "#f2f2f2")
    for part, colour in zip(parts, COLOURS, strict=False):
        began: dict[int, Timed] = {}
        for one in part:
            about = subject(one.action)
            if one.action < NOTE_OFF or one.action == SUSTAIN_DOWN:
                began[about] = one
                continue
            start = began.pop(about, None)
            if start is None:
                continue
            left = (start.time - first) * scale
            right = max((one.time - first) * scale - 1, left + 1)
            top = (HIGHEST - about) * row if about < PITCHES else height + row // 2
            strength = start.velocity / 127 if about < PITCHES else 0.2
            ink = tuple(round(255 - (255 - c) * (0.3 + 0.7 * strength)) for c in colour)
            pen.rectangle((left, top, right, top + row - 2), ink)
    return image
