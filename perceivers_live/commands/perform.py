"""The bare command: real ports, the user's own files, and a session until someone stops it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from engine.engine import Engine
from engine.realtime import DAEMON, set_realtime
from engine.states import fingerprint
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.commands.recordings import sessions_folder
from perceivers_live.commands.stage_page import StagePage, figures, show
from perceivers_live.controls.midi_map import Learnt, MidiMap
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import Settings
from perceivers_live.folders import data_folder, midi_map_path
from perceivers_live.midi.connections import Connections
from perceivers_live.page.feed import Feed
from perceivers_live.recording.recorder import Recorder, recover
from perceivers_live.session.saved_states import StateStore
from perceivers_live.session.session import Session, Triggers

log = logging.getLogger(__name__)
T = TypeVar("T")
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last on Windows, when its console is closed


def perform(settings: Settings, engine: Engine, checkpoint: Path, *, show_page: bool = False) -> None:
    """Performs until a signal says stop. ``engine`` should compute in a process of its own. ``show_page``: opens the page in a
    browser. Raises ``PortError``, ``OscError``, ``LinkError``.
    """
    controls = Controls(settings.controls)
    page = StagePage(controls) if settings.page.enabled else None
    feed = page.feed if page is not None else None
    set_realtime(DAEMON)
    with ExitStack() as closing:
        closing.callback(engine.runtime.close)
        recorder = _recorder(settings, closing)
        connections = Connections(
            settings.midi,
            lambda now, message: session.hear(now, message),
            lost=lambda: session.input_lost(time.perf_counter()),
            back=lambda: session.output_back(),
            local=page.ports if page is not None else None,
            change=lambda swap: session.change_output(swap),
        )
        states = StateStore(data_folder() / "states", engine.config, fingerprint(checkpoint))
        session = Session(
            engine,
            settings,
            controls,
            connections.send,
            beats=_link(settings, closing),
            midi_map=lambda commands, learnt: _map(controls, commands, learnt),
            states=states,
            on_human=_each(recorder.human if recorder else None, feed.human if feed else None),
            on_machine=_each(recorder.machine if recorder else None, feed.machine if feed else None),
            on_state=_each(lambda state: log.info("%s", state.value), (lambda state: feed.turn(state.value)) if feed else None),
            on_listening=lambda: log.info("listening; %s", _what_next(connections)),
            on_plan=feed,
            on_countdown=feed.countdown if feed else lambda _: None,
            on_stats=lambda stats: _tell_health(feed, session, engine, stats),
        )
        if recorder:
            recorder.on_fault = lambda error: session.fault("recording", error)
        for number in STOP_SIGNALS:
            if hasattr(signal, number):
                signal.signal(getattr(signal, number), lambda *_: session.stop())
        gc.collect()
        gc.freeze()  # a full collection would look through all there is by now, and hold up every thread for tens of milliseconds
        with ExitStack() as serving, connections:
            server = page.open(settings, session, connections, states, sessions_folder(settings), serving) if page else None
            if server is not None and show_page:
                show(server.url)
            session.run()
        log.info("closed: %s", ", ".join(f"{name} {value:g}" for name, value in session.stats().items()))
    if connections.stuck:
        logging.shutdown()
        os._exit(0)  # everything is closed and saved but for a driver that does not return


def _what_next(connections: Connections) -> str:
    return "play, and pause to hear the answer" if all(connections.names) else "the ports are waited for"


def _each(*listeners: Callable[[T], None] | None) -> Callable[[T], None]:
    """Tells each of those that there are."""
    there = [one for one in listeners if one is not None]

    def tell(what: T) -> None:
        for listener in there:
            listener(what)

    return tell


def _tell_health(feed: Feed | None, session: Session, engine: Engine, stats: Mapping[str, float]) -> None:
    if feed is not None:
        feed.health(figures(stats, session.performer.steps(), list(session.player.lateness)), engine.runtime.name)


def _recorder(settings: Settings, closing: ExitStack) -> Recorder | None:
    """Records the session, after making files of what killed sessions left."""
    if not settings.recording.record:
        return None
    folder = sessions_folder(settings)
    for path in recover(folder):
        log.info("an earlier session is now %s", path)
    recorder = Recorder(folder)
    log.info("recording; to listen to it meanwhile: perceivers-live recordings -o take.mid")

    def close() -> None:
        path = recorder.close()
        if path is not None:
            log.info("recorded as %s", path)

    closing.callback(close)
    return recorder


def _link(settings: Settings, closing: ExitStack) -> Beats | None:
    if settings.clock.source != "link":
        return None
    from perceivers_live.clock.link import LinkClock

    link = LinkClock()
    closing.callback(link.close)
    return link


def _map(controls: Controls, commands: Triggers, learnt: Learnt) -> MidiMap:
    made = MidiMap(controls, commands, midi_map_path(), on_learnt=learnt)
    if made.error:
        log.warning("%s", made.error)
    return made
