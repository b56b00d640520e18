"""With a seed, the same phrase gets the same reply, however fast the computer is and despite deviations within a 10 ms step."""

from __future__ import annotations

import numpy as np
import pytest

from engine.events import Event, Timed
from tests.perceivers_live.playing import check_at_rest
from tests.perceivers_live.virtual_session import VirtualSession, phrase

PHRASE = phrase(0.5, 12, 0.21)


def reply_to(call: list[Timed], decision_time: float, **controls: object) -> list[Event]:
    """The machine's events in the history, the first with the time since the call."""
    session = VirtualSession(controls=controls, seed=int(decision_time * 1e6))  # the session's own seed differs
    session.performer.add_decision_time(decision_time)
    session.receive(*call)
    call_end = session.engine.position
    session.run(60.0, stop=lambda: session.replying)
    session.run(60.0, stop=lambda: not session.replying)
    reply = session.engine.since(call_end)
    assert len(reply) > 12
    if not controls.get("output_offset_ms"):  # it shifts the sound, but not the history
        check_at_rest(session)
    return reply


def moved(call: list[Timed], seed: int, max_offset: float) -> list[Timed]:
    """The call with each action after the first moved within its step, and all actions shifted by the same time."""
    rng = np.random.default_rng(seed)
    begin, shift = call[0].time, float(rng.uniform(0, 3))
    steps = [begin + round((one.time - begin) * 100) / 100 for one in call]
    offsets = [0.0, *rng.uniform(-max_offset, max_offset, len(call) - 1)]
    return [one._replace(time=step + offset + shift) for one, step, offset in zip(call, steps, offsets, strict=True)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_phrase_gets_the_same_reply(seed: int) -> None:
    reply = reply_to(PHRASE, 0.01, seed=7)
    assert reply_to(moved(PHRASE, seed, 0.0045), (0.005, 0.02, 0.04)[seed - 1], seed=7) == reply


def test_same_phrase_gets_the_same_reply_if_events_are_sent_early() -> None:
    replies = [reply_to(PHRASE, decision_time, seed=7, output_offset_ms=-150.0) for decision_time in (0.005, 0.04)]
    assert replies[0] == replies[1]


def test_another_seed_or_another_rhythm_gets_another_reply() -> None:
    reply = reply_to(PHRASE, 0.01, seed=7)
    assert reply_to(PHRASE, 0.01, seed=8) != reply
    assert reply_to(moved(PHRASE, 4, 0.03), 0.01, seed=7) != reply


def test_same_phrase_gets_the_same_reply_after_forget() -> None:
    session = VirtualSession(controls={"seed": 7})
    replies = []
    for begin in (0.5, 80.503):
        session.command(session.performer.forget)
        session.receive(*phrase(begin, 12, 0.21))
        call_end = session.engine.position
        session.run(begin + 60, stop=lambda: session.replying)
        session.run(begin + 60, stop=lambda: not session.replying)
        replies.append(session.engine.since(call_end))
    assert replies[0] == replies[1]
