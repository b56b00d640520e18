"""Connects the page to a live session: the events it shows, and the controls, commands and ports it changes."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import webbrowser
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from engine.realtime import clear_realtime
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.controls.midi_map import MidiMap
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PAGE, Settings
from perceivers_live.midi.connections import Connections, PortState
from perceivers_live.network import ListenError
from perceivers_live.page.feed import Feed
from perceivers_live.page.hub import NoticeHandler
from perceivers_live.page.keys import PageKeys, PagePorts, PageSound
from perceivers_live.page.protocol import Message, seconds
from perceivers_live.page.query import OscQuery
from perceivers_live.page.recordings import Recordings
from perceivers_live.page.requests import PageRequests
from perceivers_live.page.routes import Routes
from perceivers_live.page.server import PageServer
from perceivers_live.player.ledger import Voicing
from perceivers_live.session.observers import Observer
from perceivers_live.session.saved_states import StateStore
from perceivers_live.session.session import Session

log = logging.getLogger(__name__)


class SessionPage:
    """Created before the session, which may use the page as a port; ``open`` starts the server."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self.keys = PageKeys()
        self.requests = PageRequests(controls, self.keys, session=f"{os.getpid()}-{time.time_ns()}")
        self.hub = self.requests.hub
        self.feed = Feed(self.hub, lambda pitch: Voicing.from_controls(controls.snapshot()).pitch(pitch))
        self.ports = PagePorts(self.keys, PageSound(self.hub))

    def open(
        self,
        settings: Settings,
        session: Session,
        connections: Connections,
        states: StateStore,
        recordings: Path | None,
        closing: ExitStack,
    ) -> PageServer | None:
        """Serves the page until ``closing`` is closed. If its port cannot be opened: a warning and None."""
        closing.callback(self.requests.close)
        closing.callback(session.observers.add(self._observer(session)))
        self.requests.connect(session.commands(), connections.choose)
        self.hub.poll = lambda: _polled(session, connections, states)
        osc = (settings.osc.host, settings.osc.port) if settings.osc.enabled else None
        query = OscQuery(self._controls, session.commands(), osc, self.hub, session.queries())
        closing.callback(query.close)
        routes = Routes(query.answer, Recordings(recordings) if recordings is not None else None)
        page = settings.page
        try:
            server = PageServer(routes, self.requests.serve, query.serve, page.host, page.port, allow=page.allow)
        except ListenError as error:
            if PAGE in (settings.midi.input_port, settings.midi.output_port):
                raise  # without the page there would be no input or output
            log.warning("%s", error)  # most likely another daemon uses the port
            return None
        closing.callback(server.close)
        notices = NoticeHandler(self.hub)
        logging.getLogger().addHandler(notices)
        closing.callback(logging.getLogger().removeHandler, notices)
        elsewhere = (
            f" (from other computers: port {server.port} of this computer's IP address)" if server.listens_everywhere else ""
        )
        log.info("the page is at %s%s", server.url, elsewhere)
        return server

    def _observer(self, session: Session) -> Observer:
        feed = self.feed

        def health(stats: Mapping[str, float]) -> None:
            steps, lateness = session.performer.decision_times(), list(session.player.lateness)
            feed.health(figures(stats, steps, lateness), session.engine.runtime.name)

        return Observer(
            human=feed.human,
            machine=feed.machine,
            planned=feed.planned,
            dropped=feed.dropped,
            state=lambda state: feed.turn(state.value),
            countdown=feed.countdown,
            stats=health,
            message=feed.message,
        )


def show(url: str) -> None:
    """Opens the page in a browser if there is a desktop."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    threading.Thread(target=_open_browser, args=(url,), daemon=True).start()


def _open_browser(url: str) -> None:
    clear_realtime()  # a browser inherits the priority of the thread that starts it
    try:
        webbrowser.open(url)
    except webbrowser.Error as error:
        log.info("no browser could be opened (%s): open %s", error, url)


def figures(stats: Mapping[str, float], decisions: Iterable[float], lateness: Iterable[float]) -> dict[str, float]:
    """The session's counters, and percentiles in milliseconds of decisions and of lateness."""
    values = dict(stats)
    for name, seconds_taken in (("decision_ms", list(decisions)), ("lateness_ms", list(lateness))):
        if seconds_taken:
            for share in (50, 99):
                values[f"{name}_p{share}"] = round(1000 * float(np.percentile(seconds_taken, share)), 3)
    return values


def _polled(session: Session, connections: Connections, states: StateStore) -> list[Message]:
    state = connections.state
    ports: Message = {
        "type": "ports",
        "inputs": list(state.inputs),
        "outputs": list(state.outputs),
        "input": _port(state.input),
        "output": _port(state.output),
    }
    return [
        ports,
        {"type": "states", "names": states.names()},
        _beat(session.beats, stopped=session.performer.transport_stopped),
        _bindings(session.midi_map),
    ]


def _port(port: PortState) -> Message:
    opened = port.name is not None
    return {"wanted": port.wanted, "name": port.name or "", "state": "open" if opened else "waiting", "text": port.text}


def _beat(beats: Beats | None, *, stopped: bool) -> Message:
    now = time.perf_counter()
    if beats is None or not beats.running or not beats.bpm:
        return {"type": "beat", "running": False, "stopped": stopped, "bpm": 0, "beat": 0, "at": 0}
    return {
        "type": "beat",
        "running": True,
        "stopped": stopped,
        "bpm": round(beats.bpm, 2),
        "beat": round(beats.position(now), 3),
        "at": seconds(now),
    }


def _bindings(midi_map: MidiMap) -> Message:
    bound = [{"target": one.target, "channel": one.channel, "number": one.number} for one in midi_map.bindings]
    return {"type": "bindings", "bound": bound, "learning": midi_map.learning(time.perf_counter())}
