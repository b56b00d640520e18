"""Observers: each is told what it asked for, and none costs another, or the music, anything."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON, Timed
from perceivers_live.player.ledger import Ledger, Sent, Voicing
from perceivers_live.player.player import Planned, Player
from perceivers_live.session.observers import Observer, Observers
from tests.perceivers_live.receiver import Synthesizer


def fail(_: object) -> None:
    raise BrokenPipeError


def test_an_observer_that_fails_costs_neither_the_music_nor_the_others() -> None:
    synthesizer, told = Synthesizer(), list[object]()
    observers = Observers([Observer(machine=fail, planned=fail), Observer(machine=told.append, planned=told.append)])
    player = Player(Ledger(synthesizer.send), observers)
    player.begin()
    planned = [Planned(1.0, 1, NOTE_ON + 60, 80), Planned(1.0, 2, NOTE_ON + 64, 80)]
    player.schedule(planned)
    player.play_due(1.0)
    assert synthesizer.note_ons == [60, 64]
    assert told == [planned, Timed(1.0, NOTE_ON + 60, 80), Timed(1.0, NOTE_ON + 64, 80)]


def test_what_the_machine_plays_is_told_as_it_was_sent() -> None:
    told: list[Timed] = []
    player = Player(Ledger(Synthesizer().send, voicing=lambda: Voicing(12, 0.5)), Observers([Observer(machine=told.append)]))
    player.begin()
    player.schedule([Planned(1.0, 1, NOTE_ON + 60, 80)])
    player.play_due(1.0)
    player.interrupt(1.5)
    assert [one.action % 128 for one in told] == [72, 72]
    assert told[0].velocity == Voicing(loudness=0.5).velocity(80) > 80


def test_of_what_could_not_be_sent_only_releases_are_told() -> None:
    heard: list[Timed] = []
    observers = Observers([Observer(machine=heard.append)])
    for action in (NOTE_ON + 60, NOTE_OFF + 60):
        one = Timed(1.0, action, 80)
        observers.sounded(Sent(one, one, OSError("unplugged")))
    assert [one.action for one in heard] == [NOTE_OFF + 60]


def test_an_observer_can_come_and_go() -> None:
    told: list[str] = []
    observers = Observers()
    remove = observers.add(Observer(message=told.append))
    observers.message("one")
    remove()
    observers.message("two")
    assert told == ["one"]
