"""``perceivers-live`` without a command: a session on real ports, with the user's files, until it is stopped."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import shlex
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from engine.engine import Engine
from engine.errors import program
from engine.folders import data_folder
from engine.realtime import DAEMON, set_all_realtime
from engine.states import fingerprint
from perceivers_live.clock.midi_clock import Beats
from perceivers_live.commands.addresses import check_addresses
from perceivers_live.commands.logs import BackgroundLog
from perceivers_live.commands.recordings import sessions_folder
from perceivers_live.commands.session_page import SessionPage, show
from perceivers_live.controls.midi_map_file import midi_map_path
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import PAGE, Settings, find_file
from perceivers_live.midi.connections import Callbacks, Connections
from perceivers_live.recording.recorder import Recorder, recover
from perceivers_live.session.observers import Observer
from perceivers_live.session.saved_states import StateStore
from perceivers_live.session.session import Session

log = logging.getLogger(__name__)
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # SIGBREAK: the Windows console was closed


def perform(settings: Settings, engine: Engine, checkpoint: Path, *, show_page: bool = False) -> None:
    """Performs until a signal stops it. ``engine`` should compute in another process. ``show_page``: open the page in a browser.
    Raises ``PortError``, ``ListenError``, ``LinkError``.
    """
    log_writer = BackgroundLog()
    try:
        stuck = _perform(settings, engine, checkpoint, show_page=show_page)
    finally:
        log_writer.close()
    if stuck or log_writer.stuck:
        os._exit(0)  # everything is closed and saved; only a driver or the terminal still blocks


def _perform(settings: Settings, engine: Engine, checkpoint: Path, *, show_page: bool) -> bool:
    """The session. Returns whether a driver blocks the closing of a port."""
    if sys.stderr is not None:  # None: standard error was closed
        faulthandler.enable()  # a crash of native code, such as a driver, prints where it was
    controls = Controls(settings.controls)
    page = SessionPage(controls) if settings.page.enabled else None
    set_all_realtime(DAEMON)  # also for threads of the engine and the page, which would hold the interpreter lock when preempted
    with ExitStack() as closing:
        closing.callback(engine.runtime.close)
        # Before the output is opened and silenced, since another daemon may be playing on it.
        needs_page = PAGE in (settings.midi.input_port, settings.midi.output_port)
        check_addresses(settings, osc_port=settings.osc.port, page_port=settings.page.port if needs_page else 0)
        connections = Connections(settings.midi, local=page.ports if page is not None else None)
        states = StateStore(data_folder() / "states", engine.config, fingerprint(checkpoint))
        recorder = _recorder(settings, closing)
        session = Session(
            engine,
            settings,
            controls,
            connections.send,
            beats=_link(settings, closing),
            states=states,
            bindings=midi_map_path(),
            observers=[
                Observer(
                    state=lambda state: log.info("%s", state.value),
                    started=lambda: log.info("listening; %s", _what_next(connections)),
                ),
                *([Observer(human=recorder.human, machine=recorder.machine)] if recorder is not None else []),
            ],
        )
        connections.callbacks = Callbacks(
            session.receive,
            input_lost=lambda: session.input_lost(time.perf_counter()),
            source_lost=lambda: session.source_lost(time.perf_counter()),
            input_replaced=lambda: session.input_replaced(time.perf_counter()),
            output_restored=session.output_restored,
            input_resolution=session.set_input_resolution,
            change_output=session.change_output,
        )
        if recorder is not None:
            recorder.on_fault = lambda error: session.fault("recording", error)
        for number in STOP_SIGNALS:
            if hasattr(signal, number) and not _is_nohup(number):
                signal.signal(getattr(signal, number), lambda *_: session.stop())
        gc.collect()
        gc.freeze()  # a full collection of all present objects would block every thread for tens of milliseconds
        with ExitStack() as serving, connections:
            server = page.open(settings, session, connections, states, sessions_folder(settings), serving) if page else None
            if server is not None and show_page:
                show(server.url)
            session.run()
        log.info("closed: %s", ", ".join(f"{name} {value:g}" for name, value in session.stats().items()))
    return connections.stuck


def _is_nohup(number: str) -> bool:
    """Whether this is the hang-up signal and ``nohup`` has made it ignored: the session then outlives its terminal."""
    return number == "SIGHUP" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def _what_next(connections: Connections) -> str:
    return "play, and pause to hear the reply" if all(connections.names) else "waiting for the ports"


def _recorder(settings: Settings, closing: ExitStack) -> Recorder | None:
    """Records the session if the settings ask for it, after recovering the recordings of killed sessions."""
    if not settings.recording.record:
        return None
    folder = sessions_folder(settings)
    for path in recover(folder):
        log.info("an earlier session was recovered as %s", path)
    recorder = Recorder(folder)
    if recorder.is_recording:
        config = "" if settings.path == find_file() else f" --config {shlex.quote(str(settings.path))}"
        log.info("recording; to copy the recording so far: %s recordings%s -o take.mid", program(), config)

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
