"""Offline rendering: the same performer and player on a virtual clock. Deterministic given a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from engine.engine import Engine
from engine.events import NOTE_OFF, SUSTAIN_DOWN, Timed, subject
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PhraseSettings
from perceivers_live.performer.performer import MAX_REPLY, Performer, State
from perceivers_live.player.ledger import Ledger, Sent, Voicing
from perceivers_live.player.player import Player, PlayerObserver

FOREVER = 1_000_000_000  # milliseconds: no pause of a file ends a phrase


class _Sent(PlayerObserver):
    """What the machine sent."""

    def __init__(self) -> None:
        self.actions: list[Timed] = []

    def sounded(self, one: Sent) -> None:
        self.actions.append(one.sent)


def render(
    engine: Engine,
    call: Sequence[Timed],
    controls: Controls,
    phrase: PhraseSettings,
    *,
    seed: int | None = None,
) -> list[Timed]:
    """Plays ``call`` at the performer and returns what it sent, in seconds of the call's own time. ``seed``: where the controls
    have none.

    A duet plays along. In the other modes the call is one phrase, whatever its pauses, and the machine begins when it is over; a
    solo, which has no end of its own, is ended after a minute.
    """
    mode = controls.get("mode")
    if mode != "duet":
        phrase = dataclasses.replace(phrase, min_silence_ms=FOREVER, max_silence_ms=FOREVER)
    ledger = Ledger(lambda _: None, voicing=lambda: Voicing.from_controls(controls.snapshot()))
    sent = _Sent()
    player = Player(ledger, sent)
    performer = Performer(engine, player, controls, phrase, seed=seed)
    waiting = list(reversed(call))
    now, end = (call[0].time, call[-1].time) if call else (0.0, 0.0)
    begun = False
    while True:
        if mode == "solo" and now > end + MAX_REPLY:
            performer.yield_turn(now)
        more = performer.work(now) if mode == "duet" or not waiting else None
        begun = begun or performer.state is State.PLAYING
        if not waiting and performer.state is State.LISTENING:
            if mode != "duet" and not begun:
                performer.takeover(now)
            if performer.state is State.LISTENING:  # it has played, or is not to play
                return sent.actions
        elif more is None or more > now:
            now = max(now, min(t for t in (waiting[-1].time if waiting else None, player.play_due(now), more) if t is not None))
            player.play_due(now)
            if waiting and waiting[-1].time <= now:
                one = waiting.pop()
                ledger.keys.apply(one)
                performer.absorb_input([performer.adapt_plan([one])])


def recent(timed: Sequence[Timed], seconds: float | None) -> list[Timed]:
    """The last so many seconds of a performance, without releases of what began before; all of it for None."""
    begin = timed[-1].time - seconds if timed and seconds is not None else float("-inf")
    heard: set[int] = set()
    kept = []
    for one in timed:
        if one.time < begin:
            continue
        about = subject(one.action)
        if one.action < NOTE_OFF or one.action == SUSTAIN_DOWN:
            heard.add(about)
            kept.append(one)
        elif about in heard:
            heard.discard(about)
            kept.append(one)
    return kept
