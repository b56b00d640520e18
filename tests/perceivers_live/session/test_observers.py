"""Observers receive what they asked for; a failing one affects neither the others nor the music."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON, Timed
from perceivers_live.player.ledger import Ledger, Sent, Voicing
from perceivers_live.player.player import Planned, Player
from perceivers_live.session.observers import Observer, Observers
from tests.perceivers_live.receiver import Synthesizer


def fail(_: object) -> None:
    raise BrokenPipeError


def test_failing_observer_affects_neither_the_music_nor_other_observers() -> None:
    synthesizer, received = Synthesizer(), list[object]()
    observers = Observers([Observer(machine=fail, planned=fail), Observer(machine=received.append, planned=received.append)])
    player = Player(Ledger(synthesizer.send), observers)
    player.begin()
    planned = [Planned(1.0, 1, NOTE_ON + 60, 80), Planned(1.0, 2, NOTE_ON + 64, 80)]
    player.schedule(planned)
    player.play_due(1.0)
    assert synthesizer.note_ons == [60, 64]
    assert received == [planned, Timed(1.0, NOTE_ON + 60, 80), Timed(1.0, NOTE_ON + 64, 80)]


def test_observer_receives_the_machines_notes_as_sent() -> None:
    received: list[Timed] = []
    player = Player(Ledger(Synthesizer().send, voicing=lambda: Voicing(12, 0.5)), Observers([Observer(machine=received.append)]))
    player.begin()
    player.schedule([Planned(1.0, 1, NOTE_ON + 60, 80)])
    player.play_due(1.0)
    player.interrupt(1.5)
    assert [one.action % 128 for one in received] == [72, 72]
    assert received[0].velocity == Voicing(loudness=0.5).velocity(80) > 80


def test_only_releases_are_reported_of_actions_that_could_not_be_sent() -> None:
    received: list[Timed] = []
    observers = Observers([Observer(machine=received.append)])
    for action in (NOTE_ON + 60, NOTE_OFF + 60):
        one = Timed(1.0, action, 80)
        observers.sounded(Sent(one, one, OSError("unplugged")))
    assert [one.action for one in received] == [NOTE_OFF + 60]


def test_observer_can_be_added_and_removed() -> None:
    received: list[str] = []
    observers = Observers()
    remove = observers.add(Observer(message=received.append))
    observers.message("one")
    remove()
    observers.message("two")
    assert received == ["one"]
