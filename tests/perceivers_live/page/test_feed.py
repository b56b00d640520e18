"""Reports of the session become messages for the pages."""

from __future__ import annotations

from engine.events import NOTE_OFF, NOTE_ON, REST, SUSTAIN_DOWN, Timed
from perceivers_live.page.feed import Feed
from perceivers_live.player.player import Planned
from tests.perceivers_live.page.serving import Site, page
from tests.waiting import until


def test_played_events_are_sent_with_their_part(site: Site) -> None:
    feed = Feed(site.hub)
    with page(site) as ours:
        assert until(lambda: site.hub.is_watched)
        feed.human(Timed(1.5, NOTE_ON + 60, 80))
        feed.machine(Timed(2.0, SUSTAIN_DOWN))
        assert ours.next("played") == {"type": "played", "part": "human", "events": [[1.5, "on", 60, 80]]}
        assert ours.next("played") == {"type": "played", "part": "machine", "events": [[2.0, "down", 0, 0]]}


def test_plan_is_sent_with_sounding_pitches_and_without_rests(site: Site) -> None:
    feed = Feed(site.hub, sounds_as=lambda pitch: pitch + 12)
    with page(site) as ours:
        assert until(lambda: site.hub.is_watched)
        feed.planned([Planned(1.0, 5, NOTE_ON + 60, 82), Planned(1.1, 6, REST), Planned(1.2, 7, NOTE_OFF + 60)])
        assert ours.next("planned")["events"] == [[5, 1.0, "on", 72, 82], [7, 1.2, "off", 72, 0]]
        feed.dropped(6)
        assert ours.next("dropped") == {"type": "dropped", "first": 6}


def test_without_a_page_only_the_current_state_is_kept(site: Site) -> None:
    feed = Feed(site.hub)
    feed.human(Timed(1.5, NOTE_ON + 60, 80))
    feed.planned([Planned(1.0, 1, NOTE_ON + 60, 82)])
    feed.countdown(12.0)
    feed.turn("playing")
    feed.health({"late": 0}, "onnx")
    with page(site) as ours:
        types = [ours.next("played", "planned", "countdown", "turn", "health")["type"] for _ in range(3)]
    assert sorted(types) == ["countdown", "health", "turn"]


def test_message_is_shown_as_a_notice(site: Site) -> None:
    feed = Feed(site.hub)
    with page(site) as ours:
        feed.message("saved intro\n")
        assert ours.next("notice") == {"type": "notice", "level": "info", "text": "saved intro\\n"}


def test_change_reaches_all_pages_even_if_another_one_joins_just_then(site: Site) -> None:
    names = ["0"]
    site.hub.poll = lambda: [{"type": "states", "names": list(names)}]
    with page(site) as ours:
        assert ours.next("states")["names"] == names
        for number in range(1, 6):
            names.append(str(number))
            with page(site) as other:
                assert other.next("states")["names"] == names
                assert ours.next("states")["names"] == names
