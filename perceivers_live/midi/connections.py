"""Both MIDI ports, found by name, waited for while they are away, and opened again when they come back.

No MIDI system tells rtmidi of a cable that is pulled, so the names are looked at twice a second, always by the same thread:
CoreMIDI tells of changes only where it was first asked. A JACK server that dies takes every client with it; all of them are then
made anew once a server answers again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi.ports import InputPort, MessageListener, NoSuchPort, OutputPort, PermanentPortError, PortError, Probe
from perceivers_live.midi.watchdog import Watchdog

log = logging.getLogger(__name__)
INTERVAL = 0.5  # seconds between two looks
SYSTEM = 0xF0  # messages from here on have no channel
ATTEMPTS = 3  # at finding a MIDI system
CLOSE_TIMEOUT = 0.5  # seconds that closing a port may take before it is left to itself


class Connections:
    """Opened by entering it; a watchdog stands by the output. ``on_message``: the input's callback; ``lost``: told that the input
    went away; ``back``: that the output can be sent to again. Both run on the watching thread.

    Entering raises ``PortError`` if there can be no MIDI system, or if a name fits several ports; a port that is not there is
    waited for, and so is a MIDI system that does not run.
    """

    def __init__(
        self,
        settings: MidiSettings,
        on_message: MessageListener = lambda now, message: None,
        *,
        lost: Callable[[], None] = lambda: None,
        back: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._on_message, self._lost, self._back = settings, on_message, lost, back
        self._probe: Probe | None = None
        self._input: InputPort | None = None
        self._output: OutputPort | None = None
        self._watchdog: Watchdog | None = None
        self._watched: set[int] = set()  # channels that it knows of
        self._closing: list[threading.Thread] = []
        self._said: dict[str, str] = {}  # what was last said of each port: once is enough
        self._looked = threading.Event()  # for the first time
        self._failure: Exception | None = None  # what came of it, if there is no going on
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ports", daemon=True)

    def listen(
        self, on_message: MessageListener, *, lost: Callable[[], None] = lambda: None, back: Callable[[], None] = lambda: None
    ) -> Connections:
        """Who is told, where that was not known from the beginning: to be said before entering. Returns itself."""
        self._on_message, self._lost, self._back = on_message, lost, back
        return self

    def __enter__(self) -> Connections:
        self._thread.start()
        self._looked.wait()
        if self._failure is not None:
            self._close_all()
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(4 * CLOSE_TIMEOUT)
        self._close_all()

    @property
    def stuck(self) -> bool:
        """Whether a driver never came back from closing a port; the process then cannot end in an orderly way either."""
        return any(thread.is_alive() for thread in self._closing)

    @property
    def names(self) -> tuple[str | None, str | None]:
        """Of the input and the output as they are now, None while one is away."""
        source, output = self._input, self._output  # the watching thread may take them away
        return (source.name if source else None), (output.name if output else None)

    def send(self, message: Sequence[int]) -> None:
        """Sends one raw message. Raises ``PortError`` while the output is away."""
        output = self._output
        if output is None:
            raise PortError("the output port is away")
        if message[0] < SYSTEM and message[0] & 0x0F not in self._watched:
            self._watch_channel(message[0] & 0x0F)
        output.send(message)

    def _watch_channel(self, channel: int) -> None:
        watchdog = self._watchdog
        if watchdog is not None:
            self._watched.add(channel)
            watchdog.watch(channel)

    def _open(self) -> None:
        """Opens what is not open. Raises ``PortError``, for what waiting cannot mend ``PermanentPortError``."""
        faults = []
        for which, opened, open_it in (("output", self._output, self._open_output), ("input", self._input, self._open_input)):
            try:
                if opened is None:
                    open_it()
            except NoSuchPort as absent:
                self._say(which, f"{absent}; waiting for it")
            except PortError as error:  # of the one, which must not keep the other shut
                faults.append(error)
        if faults:
            raise next((one for one in faults if isinstance(one, PermanentPortError)), faults[0])

    def _open_output(self) -> None:
        output = OutputPort(self._settings.output_port, self._probe)
        self._say("output", f"out: {output.name}")
        if self._settings.output_port:
            self._watched.clear()
            self._watchdog = Watchdog(output.address)
        self._output = output  # from here on others send: what they send is watched
        self._back()

    def _open_input(self) -> None:
        self._input = InputPort(self._settings.input_port, self._on_message, self._probe)
        self._say("input", f"in: {self._input.name}")

    def _watch(self) -> None:
        try:
            self._probe = _patient_probe()
            self._open()
        except Exception as error:
            if isinstance(error, PermanentPortError) or not isinstance(error, PortError):
                self._failure = error
                return
            self._say("system", f"{error}; trying again")
        finally:
            self._looked.set()
        while not self._stop.wait(INTERVAL):
            try:
                self._look()
            except PermanentPortError as error:
                self._say("input", str(error))
            except Exception as error:  # whatever a MIDI system in trouble raises, it may be better in a second
                self._say("system", f"{error}; trying again")

    def _look(self) -> None:
        if self._probe is None:
            self._probe = Probe()  # raises as long as there is no system
            self._say("system", "the MIDI system is back")
        if not self._probe.alive():
            self._say("system", "the MIDI system is gone; waiting for it")
            self._close_all()
            self._said.clear()
            self._lost()
            return
        inputs, outputs = self._probe.names()  # raises if a port goes just now
        went = self._probe.gone()
        if self._input is not None and self._input.is_gone(inputs, went):
            self._say("input", f"the input {self._input.name} is gone; waiting for it")
            self._close(self._input)
            self._input = None
            self._lost()
        if self._output is not None and self._output.is_gone(outputs, went):
            self._say("output", f"the output {self._output.name} is gone; waiting for it")
            gone, self._output = self._output, None
            self._close(gone)
            self._close_watchdog()
        self._open()

    def _close_watchdog(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.close()

    def _close_all(self) -> None:
        self._close_watchdog()
        ports = (self._input, self._output, self._probe)
        self._input = self._output = self._probe = None
        for port in ports:
            if port is not None:
                self._close(port)

    def _close(self, port: InputPort | OutputPort | Probe) -> None:
        """Closes it, but does not wait for ever: drivers of a dead system may not return."""
        thread = threading.Thread(target=port.close, name="closing", daemon=True)
        self._closing.append(thread)
        thread.start()
        thread.join(CLOSE_TIMEOUT)

    def _say(self, what: str, text: str) -> None:
        if self._said.get(what) != text:
            log.info("%s", text)
        self._said[what] = text


def _patient_probe() -> Probe:
    """A busy JACK server now and then refuses a client that it takes a moment later."""
    for _ in range(ATTEMPTS - 1):
        try:
            return Probe()
        except PortError:
            time.sleep(INTERVAL)
    return Probe()
