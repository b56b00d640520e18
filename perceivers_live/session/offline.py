"""Offline rendering: the same performer and player on a virtual clock. Deterministic given a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from engine.engine import Engine
from engine.events import NOTE_OFF, SUSTAIN_DOWN, Timed, subject
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.performer import Performer, State
from perceivers_live.performer.turns import MAX_REPLY
from perceivers_live.player.ledger import Ledger, Sent, Voicing
from perceivers_live.player.player import Player, PlayerObserver

FOREVER = 1_000_000_000  # milliseconds; longer than any pause in a file, so that no pause ends the phrase


class _SentActions(PlayerObserver):
    """Collects the actions that the machine sends."""

    def __init__(self) -> None:
        self.actions: list[Timed] = []

    def sounded(self, sent: Sent) -> None:
        self.actions.append(sent.sent)


def render(
    engine: Engine,
    call: Sequence[Timed],
    controls: Controls,
    phrase: PhraseSettings,
    *,
    seed: int | None = None,
    seconds: float = MAX_REPLY,
    beats: Beats | None = None,
) -> list[Timed]:
    """Plays ``call`` to the performer and returns the machine's actions. Times are in seconds, on the time axis of the call.
    ``seed`` is used if the controls have none.

    In mode duet the machine plays along. In the other modes the call is one phrase, regardless of pauses, and the machine begins
    at its end. A solo is ended after ``seconds``. ``beats``: a source of beats on the same time axis.
    """
    mode = controls.get("mode")
    if mode != "duet":
        phrase = dataclasses.replace(phrase, min_silence_ms=FOREVER, max_silence_ms=FOREVER)
    ledger = Ledger(lambda _: None, voicing=lambda: Voicing.from_controls(controls.snapshot()))
    sent = _SentActions()
    player = Player(ledger, sent)
    performer = Performer(engine, player, controls, phrase, seed=seed, beats=beats)
    pending = list(reversed(call))
    now, end = (call[0].time, call[-1].time) if call else (0.0, 0.0)
    if call and mode != "duet":  # nothing happens before the call is over: absorbing it in one piece is faster
        for one in call:
            ledger.keys.apply(one)
        performer.absorb_input([performer.adapt_plan(call)])
        now, pending = end, []
    begun = False
    while True:
        if mode == "solo" and now > end + seconds:
            performer.yield_turn(now)
        more = performer.work(now)
        begun = begun or performer.state is State.PLAYING
        if not pending and performer.state is State.LISTENING:
            if mode != "duet" and not begun:
                performer.takeover(now)
            if performer.state is State.LISTENING:  # it has played, or a control prevents it from playing
                return sent.actions
        elif more is None or more > now:
            now = max(now, min(t for t in (pending[-1].time if pending else None, player.play_due(now), more) if t is not None))
            player.play_due(now)
            if pending and pending[-1].time <= now:
                one = pending.pop()
                ledger.keys.apply(one)
                performer.absorb_input([performer.adapt_plan([one])])


def has_notes(timed: Sequence[Timed]) -> bool:
    """Whether a note begins in a performance."""
    return any(one.action < NOTE_OFF for one in timed)


def recent(timed: Sequence[Timed], seconds: float | None) -> list[Timed]:
    """The last ``seconds`` of a performance, without releases of keys pressed earlier; everything if ``seconds`` is None."""
    begin = timed[-1].time - seconds if timed and seconds is not None else float("-inf")
    pressed: set[int] = set()  # keys, and the pedal
    kept = []
    for one in timed:
        if one.time < begin:
            continue
        key = subject(one.action)
        if one.action < NOTE_OFF or one.action == SUSTAIN_DOWN:
            pressed.add(key)
            kept.append(one)
        elif key in pressed:
            pressed.discard(key)
            kept.append(one)
    return kept
