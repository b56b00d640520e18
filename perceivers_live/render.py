"""Offline rendering: the same performer and player on a virtual clock. Deterministic given a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.engine import Engine
from engine.events import NOTE_OFF, SUSTAIN_DOWN, Timed, subject
from perceivers_live.config import PhraseSettings
from perceivers_live.controls import Controls
from perceivers_live.ledger import Ledger
from perceivers_live.performer import LONGEST_REPLY, Performer, State
from perceivers_live.player import Player


def render(
    engine: Engine,
    call: Sequence[Timed],
    controls: Controls,
    phrase: PhraseSettings,
    *,
    seed: int,
    replies: int = 1,
    on_event: Callable[[Timed], None] = lambda _: None,
) -> list[Timed]:
    """Plays ``call`` at the performer and returns what it played back, in seconds of the call's own time.

    The machine answers once the call is over (and not in its pauses, unless ``replies`` is more than 1), and the rendering ends
    with that many replies. A solo, which has no end of its own, is ended after a minute.
    """
    played: list[Timed] = []

    def heard(timed: Timed) -> None:
        played.append(timed)
        on_event(timed)

    player = Player(Ledger(lambda _: None), heard)
    performer = Performer(engine, player, controls, phrase, seed=seed)
    waiting = list(reversed(call))
    now, done = (call[0].time if call else 0.0), 0
    solo = controls.get("mode") == "solo"
    begun = now
    while done < replies:
        was = performer.state
        if was is State.LISTENING:
            begun = now
        elif solo and now - begun > LONGEST_REPLY:
            performer.give_way(now)
        more = None if replies == 1 and waiting else performer.work(now)
        if was is State.PLAYING and performer.state is State.LISTENING:
            done += 1
        if more is not None and more <= now:
            continue
        if not waiting and performer.state is State.LISTENING and done == 0 and replies == 1:
            performer.takeover(now)
            if performer.state is State.LISTENING:
                break  # it is to hold, or only to listen
            continue
        times = [t for t in (waiting[-1].time if waiting else None, player.play_due(now), more) if t is not None]
        if not times:
            break
        now = max(now, min(times))
        player.play_due(now)
        if waiting and waiting[-1].time <= now:
            performer.hear([performer.react([waiting.pop()])])
    return played


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
