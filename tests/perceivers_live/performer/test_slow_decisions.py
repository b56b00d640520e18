"""Decisions take time. Meanwhile the human may play, and a chord must still be struck together."""

from __future__ import annotations

import numpy as np
import pytest

from engine.events import MAX_WAIT, NOTE_OFF, NOTE_ON, REST, Timed
from engine.runtimes import SamplingBias
from tests.perceivers_live.playing import check, longest_note, onsets
from tests.perceivers_live.toys import Hidden, possible
from tests.perceivers_live.virtual_session import VirtualSession, phrase

CHORD = (48, 60, 64, 67)


@pytest.mark.parametrize("mode", ["duet", "solo"])
@pytest.mark.parametrize(("decision", "gap"), [(0.006, 0.05), (0.02, 0.02), (0.03, 0.03), (0.04, 0.05)])
def test_input_during_slow_decisions_does_not_silence_the_machine(mode: str, decision: float, gap: float) -> None:
    """As many actions of the human as decisions: one comes during each."""
    session = VirtualSession(controls={"mode": mode})
    if mode == "duet":
        session.receive(*phrase(0.0, 4, 0.1, 40))
    else:
        session.run(0.5)
    actions = iter(Timed(0.6 + i * gap, (NOTE_OFF if i % 2 else NOTE_ON) + 36 + i // 2 % 12, 80) for i in range(1000))
    coming = next(actions)
    decide = session.runtime.decide

    def slow(position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        nonlocal coming
        drawn = decide(position, bias)
        session.performer.add_decision_time(decision)
        end = session.now + decision
        while coming.time <= end:
            session.now = max(session.now, coming.time)
            session.player.play_due(session.now)
            session.receive_while_busy(coming)
            coming = next(actions)
        session.now = end
        return drawn

    session.runtime.decide = slow  # type: ignore[method-assign]
    while session.now < 5.0:
        began = session.now
        session.catch_up()
        more = session.performer.work(session.now)
        if session.now == began:
            session.now = min(coming.time, began + 0.005 if more is None else max(more, began + 0.001))
        session.player.play_due(session.now)
        if coming.time <= session.now:
            session.receive_while_busy(coming)
            coming = next(actions)
    session.catch_up()
    assert len(onsets(session)) > 20
    assert longest_note(session) < 2.0
    check(session)


def in_chords(hidden: Hidden, bias: SamplingBias) -> tuple[int, int, int]:
    """Strikes four keys together, holds them, releases them together."""
    actions, down = set(possible(bias.action).tolist()), {pitch for pitch in CHORD if hidden.ages[pitch] >= 0}
    missing = [pitch for pitch in CHORD if pitch not in down and NOTE_ON + pitch in actions]
    held = [NOTE_OFF + pitch for pitch in down if NOTE_OFF + pitch in actions]
    growing = not down or (len(down) < len(CHORD) and max(hidden.ages[pitch] for pitch in down) < 15)
    if growing and missing:
        wanted, action = 0 if down else 30, missing[0]
    elif held:
        wanted, action = 20 if len(down) == len(CHORD) else 0, min(held)
    else:
        return MAX_WAIT, REST, 0
    waits = possible(bias.wait)
    return int(waits[min(np.searchsorted(waits, wanted), len(waits) - 1)]), action, 20


@pytest.mark.parametrize("decision", [0.0, 0.008, 0.015, 0.03])
def test_the_first_chord_of_a_reply_is_struck_together_however_long_decisions_take(decision: float) -> None:
    session = VirtualSession(in_chords, {"pace": 0.0, "variety": 0.0})
    decide = session.runtime.decide

    def slow(position: int, bias: SamplingBias) -> tuple[int, int, int] | None:
        session.now += decision
        session.performer.add_decision_time(decision)
        return decide(position, bias)

    session.runtime.decide = slow  # type: ignore[method-assign]
    session.performer.add_decision_time(decision)  # of an earlier turn
    session.receive(*phrase(0.0, 8, 0.2))
    session.run(12.0, stop=lambda: len(onsets(session)) >= len(CHORD))
    session.run(session.now + 0.1)
    first = [one.time for one in onsets(session)[: len(CHORD)]]
    assert {one.action for one in onsets(session)[: len(CHORD)]} == set(CHORD)
    assert max(first) - min(first) < 0.001
    check(session)


def test_the_first_note_after_a_takeover_does_not_wait_for_its_chord() -> None:
    session = VirtualSession(in_chords)
    session.receive(*phrase(0.0, 8, 0.2))
    expected = session.performer._decision_times.expected
    session.command(session.performer.takeover)
    began = session.now
    session.run(12.0, stop=lambda: bool(onsets(session)))
    assert onsets(session)[0].time - began < expected + 0.011  # a step of the engine's time axis
