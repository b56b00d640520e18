"""Decisions are legal for any model and any controls, and each control has its effect."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.checkpoint import save_model  # noqa: E402
from engine.config import PRESETS  # noqa: E402
from engine.events import (  # noqa: E402
    MAX_WAIT,
    NOTE_OFF,
    NOTE_ON,
    PITCHES,
    REST,
    SUSTAIN_DOWN,
    SUSTAIN_UP,
    VELOCITY_BINS,
    WAITS,
    Event,
)
from engine.model import PerceiverS  # noqa: E402
from engine.runtimes import Runtime  # noqa: E402
from engine.runtimes.choose import open_runtime  # noqa: E402
from engine.sampling import SamplingControls, repetition_penalty, sampling_bias  # noqa: E402
from engine.sounding import Sounding  # noqa: E402
from trainer.export import write_onnx  # noqa: E402

WIDTH = PRESETS["tiny"].width


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    model = PerceiverS(PRESETS["tiny"]).eval()
    with torch.no_grad():
        for out in (model.head.wait_out, model.head.action_out, model.head.velocity_out):
            out.weight *= 4  # logits as large as those of a trained model
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(model, folder)
    write_onnx(model, folder)
    return folder


@pytest.fixture(scope="module")
def eager(checkpoint: Path) -> Iterator[Runtime]:
    threads = torch.get_num_threads()
    yield open_runtime("eager", checkpoint, threads=1)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def onnx(checkpoint: Path) -> Runtime:
    return open_runtime("onnx", checkpoint, threads=1)


class Situation(NamedTuple):
    """The inputs of a decision: held keys and pedal, their owner, the controls."""

    sounding: Sounding
    sampling: SamplingControls
    own: frozenset[int]
    own_pedal: bool
    elapsed: int
    closing: bool
    hidden: np.ndarray

    def decide(self, runtime: Runtime, rng: np.random.Generator, waits: np.ndarray | None = None) -> Event:
        asked = sampling_bias(
            self.sounding,
            self.sampling,
            rng,
            own=self.own,
            own_pedal=self.own_pedal,
            elapsed=self.elapsed,
            closing=self.closing,
            waits=waits,
        )
        runtime.restore([*runtime.rings()[:-1], np.tile(self.hidden, (runtime.config.slack + 1, 1))])
        chosen = runtime.decide(0, asked)
        assert chosen is not None
        return Event(*chosen)


def sounding_of(keys: list[int], *, pedal: bool = False) -> Sounding:
    sounding = Sounding()
    for key in keys:
        sounding.apply(Event(3, NOTE_ON + key, 16))
    if pedal:
        sounding.apply(Event(3, SUSTAIN_DOWN))
    return sounding


def situation(rng: np.random.Generator) -> Situation:
    keys = [int(key) for key in rng.choice(PITCHES, int(rng.choice([0, 1, 4, 12, 100])), replace=False)]
    own = frozenset(key for key in keys if rng.random() < 0.5)
    pedal = bool(rng.random() < 0.5)
    low = int(rng.integers(0, 128))
    sampling = SamplingControls(
        temperature=float(rng.choice([0.05, 0.7, 1.0, 1.3, 5.0])),
        min_p=float(rng.choice([0.0, 0.02, 0.3])),
        register_low=low if rng.random() < 0.5 else 0,
        register_high=int(rng.integers(low, 128)) if rng.random() < 0.5 else 127,
        max_polyphony=int(rng.choice([1, 4, 128])),
    )
    elapsed = int(rng.choice([0, 0, 1, 40, 99, 100, 150]))
    hidden = rng.normal(size=WIDTH).astype(np.float32)
    own_pedal, closing = pedal and bool(rng.random() < 0.5), bool(rng.random() < 0.2)
    return Situation(sounding_of(keys, pedal=pedal), sampling, own, own_pedal, elapsed, closing, hidden)


def check_legal(event: Event, now: Situation) -> None:
    held = set(now.sounding.held().tolist())
    assert min(now.elapsed, MAX_WAIT) <= event.wait <= MAX_WAIT
    if event.is_note_on:
        assert event.pitch not in held
        assert now.sampling.register_low <= event.pitch <= now.sampling.register_high
        assert len(now.own) < now.sampling.max_polyphony
        assert not now.closing
        assert 0 <= event.velocity < VELOCITY_BINS
    elif event.is_note_off:
        assert event.pitch in now.own
    elif event.action == SUSTAIN_DOWN:
        assert not now.sounding.pedal
        assert not now.closing
    elif event.action == SUSTAIN_UP:
        assert now.sounding.pedal
        assert now.own_pedal
    else:
        assert event.action == REST
        assert event.wait == MAX_WAIT


def can_only_rest(now: Situation) -> bool:
    held, sampling = set(now.sounding.held().tolist()), now.sampling
    free = set(range(sampling.register_low, sampling.register_high + 1)) - held
    notes = bool(free) and len(now.own) < sampling.max_polyphony and not now.closing
    pedal = now.own_pedal or not (now.sounding.pedal or now.closing)
    return not (notes or now.own or pedal)


def test_thousands_of_decisions_are_legal(eager: Runtime) -> None:
    rng = np.random.default_rng(11)
    seen = set()
    for _ in range(3000):
        now = situation(rng)
        if can_only_rest(now):
            continue  # tested separately
        event = now.decide(eager, rng)
        check_legal(event, now)
        seen.add("on" if event.is_note_on else "off" if event.is_note_off else event.action)
    assert seen == {"on", "off", SUSTAIN_DOWN, SUSTAIN_UP, REST}


@pytest.mark.parametrize(
    ("keys", "sampling", "closing"),
    [
        ([60], SamplingControls(), True),  # closing while the human holds a key and the pedal
        ([60], SamplingControls(register_low=60, register_high=60), False),  # the human holds the only key of the register
        ([60], SamplingControls(max_polyphony=0), False),
        ([60], SamplingControls(register_low=80, register_high=70), False),  # the low end is above the high end
    ],
    ids=["closing", "narrow register", "no polyphony", "empty register"],
)
@pytest.mark.parametrize("elapsed", [0, 30, 100])
def test_if_nothing_can_be_played_the_event_is_a_rest(
    keys: list[int], sampling: SamplingControls, closing: bool, elapsed: int, eager: Runtime, onnx: Runtime
) -> None:
    rng = np.random.default_rng(13)
    for _ in range(60):
        hidden = rng.normal(size=WIDTH).astype(np.float32)
        now = Situation(sounding_of(keys, pedal=True), sampling, frozenset(), False, elapsed, closing, hidden)
        for runtime in (eager, onnx):
            assert now.decide(runtime, rng)[:2] == (MAX_WAIT, REST)


def test_polyphony_counts_only_the_machines_own_keys(eager: Runtime) -> None:
    rng = np.random.default_rng(17)
    sampling = SamplingControls(max_polyphony=2)
    humans = list(range(40, 50))
    played = {1: 0, 2: 0}
    for own in (frozenset({60}), frozenset({60, 62})):
        for _ in range(200):
            now = Situation(
                sounding_of([*humans, *own]), sampling, own, False, 0, False, rng.normal(size=WIDTH).astype(np.float32)
            )
            played[len(own)] += now.decide(eager, rng).is_note_on
    assert played[1] > 20
    assert played[2] == 0


def test_the_same_noise_gives_the_same_event_on_every_runtime(eager: Runtime, onnx: Runtime) -> None:
    rng = np.random.default_rng(19)
    events = []
    for seed in range(500):
        now = situation(rng)
        first = now.decide(eager, np.random.default_rng(seed))
        assert now.decide(eager, np.random.default_rng(seed)) == first
        if not can_only_rest(now):
            assert now.decide(onnx, np.random.default_rng(seed)) == first
        events.append(first)
    assert len(set(events)) > 200


def test_different_noise_gives_different_events(eager: Runtime) -> None:
    now = Situation(sounding_of([]), SamplingControls(min_p=0.0), frozenset(), False, 0, False, np.ones(WIDTH, np.float32))
    assert len({now.decide(eager, np.random.default_rng(seed)) for seed in range(60)}) > 20


def greedy_choice(runtime: Runtime, hidden: np.ndarray, given: int | None = None) -> tuple[int, int, int]:
    """The greedy wait, note-on and velocity, or those after a ``given`` wait, if no key is held."""
    head = runtime._model.head
    with torch.inference_mode():
        h, logits = head.wait_logits(torch.from_numpy(hidden)[None])
        wait = logits.argmax(-1) if given is None else torch.tensor([given])
        h, logits = head.action_logits(h, wait)
        action = logits[:, :PITCHES].argmax(-1)
        return int(wait), int(action), int(head.velocity_logits(h, action).argmax(-1))


def agreement(runtime: Runtime, sampling: SamplingControls) -> float:
    """Share of the note-ons that are the greedy choice."""
    rng = np.random.default_rng(23)
    same = []
    for _ in range(200):
        hidden = rng.normal(size=WIDTH).astype(np.float32)
        event = Situation(sounding_of([]), sampling, frozenset(), False, 0, False, hidden).decide(runtime, rng)
        if event.is_note_on:
            same.append(event == greedy_choice(runtime, hidden))
    return float(np.mean(same))


def test_low_temperature_approaches_the_greedy_choice(eager: Runtime) -> None:
    cold, warm, hot = (agreement(eager, SamplingControls(temperature=t, min_p=0.0)) for t in (0.0, 0.5, 3.0))
    assert cold > 0.75
    assert cold > warm + 0.1
    assert warm > hot + 0.05


def drawn(runtime: Runtime, sampling: SamplingControls, seed: int) -> tuple[np.ndarray, Event]:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=WIDTH).astype(np.float32)
    return hidden, Situation(sounding_of([]), sampling, frozenset(), False, 0, False, hidden).decide(runtime, rng)


def test_min_p_of_one_makes_pitch_and_velocity_greedy_at_any_temperature(eager: Runtime) -> None:
    struck = 0
    for seed in range(200):
        hidden, event = drawn(eager, SamplingControls(temperature=3.0, min_p=1.0), seed)
        if event.is_note_on:
            assert tuple(event) == greedy_choice(eager, hidden, event.wait)
            struck += 1
    assert struck > 50


def share_of_note_ons(runtime: Runtime, sampling: SamplingControls) -> float:
    """The share of note-ons among 1000 decisions from one state in which 40 keys are held."""
    keys, rng = list(range(40, 80)), np.random.default_rng(5)
    hidden = np.random.default_rng(6).normal(size=WIDTH).astype(np.float32)
    waits = np.where(np.arange(WAITS) == 3, 0.0, -1e9).astype(np.float32)  # one wait only, because the action depends on it
    now = Situation(sounding_of(keys), sampling, frozenset(keys), False, 0, False, hidden)
    return float(np.mean([now.decide(runtime, rng, waits).is_note_on for _ in range(1000)]))


@pytest.mark.parametrize("changed", [{"temperature": 0.5}, {"temperature": 1.5}, {"min_p": 0.5}])
def test_temperature_and_min_p_do_not_change_how_likely_a_note_on_is(eager: Runtime, changed: dict[str, float]) -> None:
    """Note-ons are spread over many pitches, note-offs over the few held keys: a common threshold would shorten the notes."""
    as_trained = share_of_note_ons(eager, SamplingControls(min_p=0.0))
    assert 0.2 < as_trained < 0.8, "the test needs both note-ons and note-offs"
    assert share_of_note_ons(eager, SamplingControls(**{"min_p": 0.0, **changed})) == pytest.approx(as_trained, abs=0.06)


def test_min_p_does_not_apply_to_waits(eager: Runtime) -> None:
    """The probability of long waits is spread over many unlikely steps; dropping these would make all music faster."""
    for seed in range(200):
        waits = {drawn(eager, SamplingControls(min_p=min_p), seed)[1].wait for min_p in (0.0, 0.1, 1.0)}
        assert len(waits) == 1


def test_wait_bias_is_added_to_the_possible_waits() -> None:
    waits = np.full(WAITS, -5, np.float32)
    waits[7] = 0
    asked = sampling_bias(
        sounding_of([]), SamplingControls(), np.random.default_rng(0), own=(), own_pedal=False, elapsed=3, waits=waits
    )
    assert asked.wait[7] == 0
    assert (asked.wait[:3] < -1000).all()
    assert (asked.wait[[3, 50]] == -5).all()
    assert waits[0] == -5  # the caller's array is unchanged


def test_default_controls_add_no_bias() -> None:
    neutral = sampling_bias(sounding_of([]), SamplingControls(), np.random.default_rng(0), own=(), own_pedal=False)
    assert not neutral.wait.any()
    assert not neutral.velocity.any()
    assert not neutral.action[: PITCHES + NOTE_ON].any()


def test_deciding_does_not_change_the_state(eager: Runtime) -> None:
    sounding = sounding_of([60, 64], pedal=True)
    before = sounding.ages()
    now = Situation(sounding, SamplingControls(max_polyphony=1), frozenset({60}), True, 10, True, np.ones(WIDTH, np.float32))
    now.decide(eager, np.random.default_rng(1))
    assert np.array_equal(sounding.ages(), before)


def test_a_repeated_note_is_penalised_and_a_melody_is_not() -> None:
    assert not repetition_penalty([60 + i % 12 for i in range(200)]).any()
    hammered, trill = repetition_penalty([60] * 30), repetition_penalty([60, 62] * 15)
    assert hammered[60] > trill[60] > 0
    assert np.count_nonzero(hammered) == 1
    assert repetition_penalty([60] * 10)[60] < hammered[60] < repetition_penalty([60] * 60)[60]
    assert repetition_penalty([60] * 30 + [62 + i % 12 for i in range(60)])[60] < 1  # old notes no longer count


@pytest.mark.parametrize("keys", [1, 2, 3, 4])
def test_a_run_on_few_keys_is_penalised_more_with_every_note(keys: int) -> None:
    """From the fourth note of each key on; fewer notes are not penalised."""
    stay = [60 + i % keys for i in range(12 * keys)]
    assert not repetition_penalty(stay[: 3 * keys]).any()
    costs = [
        float(repetition_penalty(stay[:length]).min(initial=99, where=np.isin(np.arange(PITCHES), stay)))
        for length in range(4 * keys, 12 * keys)
    ]
    assert all(later >= earlier + 0.5 for earlier, later in itertools.pairwise(costs))
    away = repetition_penalty([*stay, 72, 76, 79])
    assert not away[[72, 76, 79]].any()


def test_a_drone_is_penalised_despite_notes_in_between() -> None:
    drone = repetition_penalty([note for i in range(24) for note in (36, 60 + 5 * i % 24)])
    assert drone[36] > 2
    assert drone[40:].max() == 0


def test_variety_scales_the_repetition_penalty() -> None:
    def bias(variety: float) -> np.ndarray:
        rng = np.random.default_rng(0)
        return sampling_bias(
            Sounding(), SamplingControls(variety=variety), rng, own=(), own_pedal=False, strikes=[60] * 30
        ).action

    assert bias(0.0)[60] == bias(0.0)[61] == bias(1.0)[61] == 0
    assert bias(2.0)[60] == pytest.approx(2 * bias(1.0)[60])
    assert bias(1.0)[60] < -1


def test_notes_of_others_can_be_released_only_if_shared() -> None:
    sounding = sounding_of([60, 64], pedal=True)

    def possible(own: set[int], shared: bool) -> set[int]:
        asked = sampling_bias(sounding, SamplingControls(), np.random.default_rng(0), own=own, own_pedal=False, shared=shared)
        return {action for action in range(NOTE_OFF, REST) if asked.action[action] == 0}

    assert possible({60}, shared=False) == {NOTE_OFF + 60}
    assert possible({60}, shared=True) == {NOTE_OFF + 60, NOTE_OFF + 64, SUSTAIN_UP}
    assert possible(set(), shared=True) == {NOTE_OFF + 60, NOTE_OFF + 64, SUSTAIN_UP}
