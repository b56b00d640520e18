"""The page in a real browser with a real daemon and model: on the page's own ports, without a MIDI system, and on JACK."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser

from tests.free_port import free_port
from tests.live.browser import Visitor, chromium, needs_chromium
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.remote import Remote
from tests.live.waiting import TIMEOUT, until

pytestmark = needs_chromium
SETTINGS = """
[phrase]
min_silence_ms = 1500
max_silence_ms = 2000
"""
Start = Callable[..., "PageSession"]


class PageSession:
    """A daemon and its page."""

    def __init__(self, daemon: Callable[..., Daemon], home: Home, *arguments: str, page_port: int = 0) -> None:
        home.configure(SETTINGS)
        port = free_port()
        own = () if "--in" in arguments else ("--in", "page", "--out", "page")
        ports = ("--osc-port", str(port), "--page-port", str(page_port))
        self.daemon = daemon(*own, *ports, "--seed", "3", *arguments)
        self.url = self.daemon.wait_for_line(r"the page is at (http://\S+)", TIMEOUT)[1]
        self.daemon.wait_for_line("listening;", TIMEOUT)
        self.remote = Remote(port)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def start_session(daemon: Callable[..., Daemon], home: Home) -> Iterator[Start]:
    """Starts sessions; their OSC clients are closed after the test."""
    with ExitStack() as stack:

        def start(*arguments: str, page_port: int = 0) -> PageSession:
            session = PageSession(daemon, home, *arguments, page_port=page_port)
            stack.callback(session.remote.close)
            return session

        yield start


@contextmanager
def visit(browser: Browser, url: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, url)
    try:
        yield visitor
    finally:
        visitor.close()


def wait_for_osc(remote: Remote, name: str, value: float) -> None:
    """Waits until an OSC subscriber has received this value of a control."""
    until(lambda: [one.values[0] for one in remote.received(name)][-1:] == [pytest.approx(value)], lambda: remote.received(name))


def test_typed_phrase_is_answered_and_a_key_press_cancels_the_answer(start_session: Start, browser: Browser) -> None:
    session = start_session()
    with visit(browser, session.url) as visitor:
        assert visitor.sounds() == 0
        visitor.play()
        waited = [visitor.status]
        visitor.until(lambda: waited.append(visitor.status) or visitor.status == "The machine plays")
        left = [float(found[1]) for text in waited if (found := re.match(r"Replies in ([\d.]+) s", text))]
        assert len(left) >= 2, waited
        assert left == sorted(left, reverse=True), "the countdown does not count down"
        visitor.until(lambda: visitor.ask("perceivers.music.notes.some((note) => note.part === 'machine')"))
        visitor.until(lambda: visitor.sounds() > 0.001)
        visitor.until(lambda: visitor.ask("perceivers.music.plan.length") > 0)
        visitor.page.keyboard.down("KeyQ")
        visitor.until(lambda: visitor.ask("perceivers.daemon.turn") == "listening")
        assert visitor.ask("perceivers.music.plan.length") == 0
        assert visitor.ask("perceivers.music.notes.filter((note) => note.end === null).map((note) => note.part)") == ["human"]
        visitor.page.keyboard.up("KeyQ")
        visitor.page.keyboard.press("Escape")
    human, machine = session.remote.states[:1], session.remote.states
    assert human == ["playing"]
    assert machine[-1] == "listening"


def test_page_works_without_a_midi_system(browser: Browser, home: Home) -> None:
    home.configure(SETTINGS + f"[osc]\nport = {free_port()}\n")
    nothing = {"JACK_DEFAULT_SERVER": "nothing", "JACK_NO_START_SERVER": "1"}
    daemon = Daemon(("page", "--page-port", "0"), os.environ | nothing, home)
    try:
        url = daemon.wait_for_line(r"the page is at (http://\S+)", TIMEOUT)[1]
        with visit(browser, url) as visitor:
            visitor.play()
            visitor.until(lambda: visitor.status == "The machine plays" and visitor.sounds() > 0.001)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    finally:
        daemon.end()


# Chromium's Web MIDI needs the ALSA sequencer, which containers lack; this script replaces it with a simulated keyboard.
WEB_MIDI = """
window.keyboard = {name: "Test piano", state: "connected", onmidimessage: null};
navigator.requestMIDIAccess = async () => ({inputs: new Map([["1", window.keyboard]]), onstatechange: null});
"""


def test_web_midi_keyboard_is_answered(start_session: Start, browser: Browser) -> None:
    session = start_session()
    with visit(browser, session.url) as visitor:
        visitor.page.evaluate(WEB_MIDI)
        if not visitor.page.is_visible("#tab-ports"):
            visitor.page.click("#panel-switch")
        visitor.page.click("#tab-ports")
        visitor.page.click("#webmidi")
        visitor.until(lambda: visitor.page.inner_text("#webmidi-names") == "Test piano")
        for message in [(status, pitch, 80) for pitch in (60, 64, 67, 72, 71, 67) for status in (0x90, 0x80)]:
            script = "message => keyboard.onmidimessage({data: new Uint8Array(message), timeStamp: performance.now()})"
            visitor.page.evaluate(script, list(message))
            time.sleep(0.08)
        visitor.until(lambda: visitor.ask("perceivers.music.notes.filter((note) => note.part === 'human').length") == 6)
        visitor.until(lambda: visitor.status == "The machine plays")
        visitor.page.keyboard.press("Escape")


def test_each_note_delays_the_answer(start_session: Start, browser: Browser) -> None:
    session = start_session("--mode", "respond")
    with visit(browser, session.url) as visitor:
        visitor.play("KeyC", "KeyE", "KeyG")
        visitor.until(lambda: visitor.ask("perceivers.daemon.countdown !== null"))
        before = visitor.ask("perceivers.daemon.countdown")
        visitor.play("KeyC")
        visitor.until(lambda: visitor.ask("perceivers.daemon.countdown") > before)
        visitor.page.keyboard.press("Escape")


def test_control_changes_reach_all_pages_and_osc(start_session: Start, browser: Browser) -> None:
    session = start_session()
    with visit(browser, session.url) as visitor, visit(browser, session.url) as other:
        visitor.page.fill("#control-temperature", "1.5")
        other.until(lambda: other.value["temperature"] == pytest.approx(1.5))
        wait_for_osc(session.remote, "temperature", 1.5)
        session.remote.send("temperature", 0.5)
        for each in (visitor, other):
            each.until(lambda each=each: each.value["temperature"] == pytest.approx(0.5))  # type: ignore[misc]
        visitor.page.dblclick("[data-control=temperature] label")
        wait_for_osc(session.remote, "temperature", 1.0)
        visitor.page.click("[data-value=solo]")
        other.until(lambda: other.ask("perceivers.daemon.values.mode") == "solo")
        visitor.until(lambda: visitor.ask("perceivers.daemon.turn") == "playing")


def test_space_starts_a_turn_and_escape_silences_it(start_session: Start, browser: Browser) -> None:
    session = start_session()
    with visit(browser, session.url) as visitor:
        visitor.page.click("#roll")
        visitor.page.keyboard.press("Space")
        visitor.until(lambda: visitor.ask("perceivers.daemon.turn") == "playing")
        visitor.until(lambda: visitor.ask("perceivers.music.sounding().size") > 0)
        visitor.page.keyboard.press("Escape")
        visitor.until(lambda: visitor.ask("perceivers.daemon.turn") == "listening")
        visitor.until(lambda: visitor.ask("perceivers.music.sounding().size") == 0)
        visitor.until(lambda: visitor.sounds() < 0.02)


def test_after_the_mouse_has_set_something_the_keys_still_play(start_session: Start, browser: Browser) -> None:
    session = start_session("--mode", "listen", "--in", "", "--out", "page")
    with visit(browser, session.url) as visitor:
        visitor.page.click("#tab-ports")
        visitor.page.select_option("#port-input", "page")
        visitor.until(lambda: visitor.page.eval_on_selector("#port-input", "one => one.value") == "page")
        visitor.play("KeyC")
        visitor.until(lambda: visitor.ask("perceivers.music.notes.length") == 1)
        visitor.page.click("#tab-controls")
        visitor.page.click("#control-temperature")
        changed = visitor.value["temperature"]
        visitor.page.keyboard.press("ArrowDown")  # the pedal; in the slider it would be another value
        visitor.play("KeyE")
        visitor.until(lambda: visitor.ask("perceivers.music.notes.length") == 2)
        assert visitor.value["temperature"] == changed
        visitor.page.fill("#control-seed", "5")
        visitor.page.keyboard.press("Enter")
        visitor.play("KeyG")
        visitor.until(lambda: visitor.ask("perceivers.music.notes.length") == 3)
        visitor.page.fill("#state-name", "intro")
        visitor.page.keyboard.press("Enter")
        visitor.play("KeyC")
        visitor.until(lambda: visitor.ask("perceivers.music.notes.length") == 4)
        visitor.until(lambda: "saved intro" in visitor.page.inner_text("#notices"))
        visitor.page.focus("#control-temperature")  # with the keyboard, the slider is moved by its arrow keys
        visitor.page.keyboard.press("ArrowDown")
        visitor.until(lambda: visitor.value["temperature"] < changed)


def test_port_that_cannot_be_opened_is_not_shown_as_chosen(start_session: Start, browser: Browser) -> None:
    session = start_session()
    with visit(browser, session.url) as visitor:
        visitor.page.click("#tab-ports")
        visitor.ask("document.querySelector('#port-output').append(new Option('Unplugged'))")  # listed, and gone meanwhile
        visitor.page.select_option("#port-output", "Unplugged")
        visitor.until(lambda: "Unplugged" in visitor.page.inner_text("#notices"))
        assert visitor.page.eval_on_selector("#port-output", "one => one.value") == "page"


def test_port_list_that_was_only_looked_at_leaves_the_keys_to_the_piano(start_session: Start, browser: Browser) -> None:
    session = start_session("--mode", "listen")
    with visit(browser, session.url) as visitor:
        visitor.page.click("#tab-ports")
        visitor.page.evaluate("document.querySelector('#port-output').append(new Option('Cembalo'))")
        visitor.page.hover("#port-output")
        visitor.page.evaluate("dispatchEvent(new PointerEvent('pointerdown')), document.querySelector('#port-output').focus()")
        visitor.play("KeyC")  # by type-ahead, it would choose the port
        visitor.until(lambda: visitor.ask("perceivers.music.notes.length") == 1)
        assert visitor.page.eval_on_selector("#port-output", "one => one.value") == "page"


def test_port_is_chosen_with_the_keyboard(start_session: Start, browser: Browser) -> None:
    """Arrow keys pass over the ports in between."""
    session = start_session("--in", "", "--out", "page", "--mode", "listen")
    with visit(browser, session.url) as visitor:
        visitor.page.click("#tab-ports")
        visitor.ask(
            "document.querySelector('#port-input').add(new Option('Unplugged'), 1)"
        )  # between the page and the virtual port
        visitor.page.focus("#port-input")
        visitor.page.keyboard.press("ArrowUp")
        visitor.page.keyboard.press("ArrowUp")
        visitor.page.keyboard.press("Enter")
        visitor.until(lambda: visitor.ask("document.querySelector('#port-input-state').dataset.state") == "open")
        visitor.until(lambda: visitor.page.eval_on_selector("#port-input", "one => one.value") == "page")
        assert "Unplugged" not in visitor.page.inner_text("#notices")


def test_midi_controller_is_learnt_from_the_page(start_session: Start, browser: Browser, jack: JackServer) -> None:
    peer = Peer(jack, "learn")
    try:
        session = start_session("--in", peer.keys, "--out", "page")
        with visit(browser, session.url) as visitor:
            learn = visitor.page.locator("[data-control=temperature] .learn")
            learn.click()
            visitor.until(lambda: "learning" in str(learn.get_attribute("class")))
            for value in (10, 40, 90):
                peer.send(0xB0, 21, value)
            visitor.until(lambda: learn.text_content() == "CC 21")
            peer.send(0xB0, 21, 127)
            visitor.until(lambda: visitor.value["temperature"] == pytest.approx(1.5))
            learn.click()
            visitor.until(lambda: learn.text_content() == "learn")
    finally:
        peer.close()


def test_output_change_while_playing_leaves_no_hanging_note(start_session: Start, browser: Browser, jack: JackServer) -> None:
    peer = Peer(jack, "change")
    try:
        session = start_session("--in", "page", "--out", peer.synth, "--mode", "solo")
        with visit(browser, session.url) as visitor:
            peer.until(lambda: peer.struck > 5 and bool(peer.sounding))
            visitor.page.click("#tab-ports")
            visitor.page.select_option("#port-output", "page")
            visitor.page.click("#stage")  # a click allows the sound
            peer.until(lambda: not peer.sounding)
            visitor.until(lambda: visitor.ask("perceivers.daemon.isOutputHere") and visitor.sounds() > 0.001)
            note_count = peer.struck
            visitor.until(lambda: visitor.ask("perceivers.music.notes.length") > 5)
            assert peer.struck == note_count, "it still plays on the old output"
            visitor.page.select_option("#port-output", peer.synth)
            peer.until(lambda: peer.struck > note_count + 3)
            visitor.page.keyboard.press("Escape")
            peer.until(lambda: not peer.sounding)
    finally:
        peer.close()


def test_page_reconnects_after_the_daemon_was_killed(start_session: Start, browser: Browser) -> None:
    port = free_port()
    session = start_session("--mode", "solo", page_port=port)
    with visit(browser, session.url) as visitor:
        visitor.until(lambda: visitor.ask("perceivers.music.sounding().size") > 0)
        session.daemon.signal(signal.SIGKILL)
        visitor.until(lambda: visitor.status.startswith("Disconnected"))
        visitor.until(lambda: visitor.ask("perceivers.music.sounding().size") == 0)
        start_session(page_port=port)
        visitor.until(lambda: visitor.status == "Play a phrase, and pause")
        assert "restarted" in visitor.page.inner_text("#notices")
        visitor.play()
        visitor.until(lambda: visitor.status == "The machine plays")


# Whether something is drawn on a canvas.
DRAWN = "one => one.width > 0 && one.getContext('2d').getImageData(0, 0, one.width, one.height).data.some((value) => value > 0)"


def test_recording_of_an_earlier_session_is_listed_played_and_downloaded(
    start_session: Start, browser: Browser, home: Home
) -> None:
    first = start_session()
    with visit(browser, first.url) as visitor:
        visitor.play()
        visitor.until(lambda: visitor.ask("perceivers.daemon.turn") == "playing")
    first.daemon.signal(signal.SIGTERM)
    assert first.daemon.wait() == 0
    [path] = home.sessions
    session = start_session()
    with visit(browser, session.url) as visitor:
        visitor.page.click("#tab-recordings")
        item = visitor.page.locator(f"[data-recording='{path.stem}']")
        item.wait_for()
        visitor.page.click("#tab-help")  # perhaps before the file has come
        visitor.page.click("#tab-recordings")
        visitor.until(lambda: re.fullmatch(r"\d+ notes", item.locator(".about").inner_text()))
        visitor.until(lambda: item.locator("canvas").evaluate(DRAWN))
        visitor.until(lambda: visitor.page.inner_text("#sound") == "Sound: on")  # since the first click
        visitor.page.click("#sound")
        visitor.until(lambda: visitor.page.inner_text("#sound") == "Sound: off")
        item.locator("button").click()
        visitor.until(lambda: visitor.sounds() > 0.001)
        item.locator("button").click()
        with visitor.page.expect_download() as download:
            item.locator("a").click()
        assert download.value.suggested_filename == path.name
        assert download.value.path().read_bytes() == path.read_bytes()
        path.unlink()
        visitor.page.reload()
        visitor.page.click("#tab-recordings")
        visitor.until(lambda: visitor.page.is_visible("#recordings .empty"))


def test_mouse_notes_have_velocity_and_duration_and_are_recorded(start_session: Start, browser: Browser, home: Home) -> None:
    session = start_session("--mode", "listen")
    with visit(browser, session.url) as visitor:
        box = visitor.page.locator("#keybed").bounding_box()
        assert box is not None
        for share in (0.3, 0.9):
            visitor.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + share * box["height"])
            visitor.page.mouse.down()
            time.sleep(0.1)
            visitor.page.mouse.up()
        visitor.until(lambda: visitor.ask("perceivers.music.notes.length") == 2)
        soft, loud = visitor.ask("perceivers.music.notes.map((note) => note.velocity)")
        assert soft < loud
        assert visitor.ask("perceivers.music.notes.every((note) => note.end - note.start > 0.05)")
    session.daemon.signal(signal.SIGTERM)
    assert session.daemon.wait() == 0
    assert len(home.sessions) == 1
