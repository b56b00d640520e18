"""What the session tells becomes messages for the pages."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, Timed
from perceivers_live.page.feed import Feed
from perceivers_live.player.player import Planned
from tests.perceivers_live.page.serving import Served, page
from tests.waiting import until


def test_what_was_played_is_told_with_its_part(stage: Served) -> None:
    feed = Feed(stage.hub)
    with page(stage) as ours:
        assert until(lambda: stage.hub.is_watched)
        feed.human(Timed(1.5, NOTE_ON + 60, 80))
        feed.machine(Timed(2.0, SUSTAIN_DOWN))
        assert ours.next("played") == {"type": "played", "part": "human", "events": [[1.5, "on", 60, 80]]}
        assert ours.next("played") == {"type": "played", "part": "machine", "events": [[2.0, "down", 0, 0]]}


def test_the_plan_is_told_as_it_will_sound_without_its_rests(stage: Served) -> None:
    feed = Feed(stage.hub, sounds_as=lambda pitch: pitch + 12)
    with page(stage) as ours:
        assert until(lambda: stage.hub.is_watched)
        feed.planned([Planned(1.0, 5, NOTE_ON + 60, 82), Planned(1.1, 6, REST), Planned(1.2, 7, NOTE_OFF + 60)])
        assert ours.next("planned")["events"] == [[5, 1.0, "on", 72, 82], [7, 1.2, "off", 72, 0]]
        feed.dropped(6)
        assert ours.next("dropped") == {"type": "dropped", "first": 6}


def test_without_a_page_notes_are_not_even_queued_but_how_things_stand_is(stage: Served) -> None:
    feed = Feed(stage.hub)
    feed.human(Timed(1.5, NOTE_ON + 60, 80))
    feed.planned([Planned(1.0, 1, NOTE_ON + 60, 82)])
    feed.countdown(12.0)
    feed.turn("playing")
    feed.health({"late": 0}, "onnx")
    with page(stage) as ours:
        told = [ours.next("played", "planned", "countdown", "turn", "health")["type"] for _ in range(3)]
    assert sorted(told) == ["countdown", "health", "turn"]
