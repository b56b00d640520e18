"""Opens the MIDI input and output by name, waits for missing ports, and reopens ports that come back.

rtmidi does not report an unplugged cable, so the port names are polled twice a second, always from the same thread: CoreMIDI
reports changes only to the thread that first listed the ports. If a JACK server ends, all its clients end too; they are created
again once a server answers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from engine.midi import SUSTAIN, MessageListener
from perceivers_live.controls.settings import MidiSettings
from perceivers_live.midi.ports import (
    CLOSE_TIMEOUT,
    NAME,
    Input,
    InputPort,
    LocalPorts,
    NoSuchPort,
    Output,
    OutputPort,
    PermanentPortError,
    PortError,
    Probe,
    close_with_timeout,
    find,
)
from perceivers_live.midi.watchdog import Watchdog

log = logging.getLogger(__name__)
INTERVAL = 0.5  # seconds between two polls
OPTIONAL_PROBE_INTERVAL = 10.0  # seconds between two searches for a MIDI system that is not needed
PAUSE = 0.1  # seconds after a choice that failed; limits the rate of log messages
SYSTEM = 0xF0  # messages from here on have no channel


@dataclass(frozen=True)
class PortState:
    """State of one of the two ports: the requested name and the full name (None while it is missing)."""

    wanted: str
    name: str | None
    text: str  # the last log message about it


@dataclass(frozen=True)
class PortsState:
    """The available ports, and the state of the two chosen ones."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input: PortState
    output: PortState


@dataclass(frozen=True)
class Callbacks:
    """What ``Connections`` calls; each default does nothing. All but ``message`` run on the polling thread.

    ``message``: the input's callback. ``input_lost``: the input has disappeared, or is connected to nothing any more.
    ``source_lost``: one of several sources of the input was disconnected. ``input_replaced``: ``choose`` has opened another
    input. ``output_restored``: the output can be used again. ``input_resolution``: the interval in seconds to which the times of
    an input that is being opened are quantized (0: unknown). ``change_output``: receives a function that switches to another
    output, and calls it once the present output is silent.
    """

    message: MessageListener = lambda now, message: None
    input_lost: Callable[[], None] = lambda: None
    source_lost: Callable[[], None] = lambda: None
    input_replaced: Callable[[], None] = lambda: None
    output_restored: Callable[[], None] = lambda: None
    input_resolution: Callable[[float], None] = lambda seconds: None
    change_output: Callable[[Callable[[], None]], None] = lambda swap: swap()


class Connections:
    """A context manager: entering opens the ports and starts a watchdog process for the output. ``callbacks`` may be set until
    then. ``local``: ports that need no MIDI system.

    Entering raises ``PortError`` if a MIDI system is needed and cannot exist here, or if a name matches several ports. It waits
    for a port that is missing, and for a MIDI system that does not run.
    """

    def __init__(self, settings: MidiSettings, callbacks: Callbacks | None = None, *, local: LocalPorts | None = None) -> None:
        self.callbacks, self._local = callbacks or Callbacks(), local
        self._invert_pedal = settings.invert_pedal
        self._wanted = {"input": settings.input_port, "output": settings.output_port}
        self._probe: Probe | None = None
        self._next_probe = 0.0  # time of the next search for a MIDI system that is not needed
        self._available: tuple[tuple[str, ...], tuple[str, ...]] = (), ()  # the ports of other programs and devices
        self._input: Input | None = None
        self._heard: MessageListener | None = None  # the callback of the input whose messages count
        self._hearing = threading.Lock()  # held while a message of the input is processed
        self._output: Output | None = None
        self._watchdog: Watchdog | None = None
        self._closing: list[threading.Thread] = []
        self._found = {"input": "", "output": ""}  # texts that find the last open ports again
        self._last_logged: dict[str, str] = {}  # last log message about each port, to avoid repeats
        self._first_poll_done = threading.Event()  # set after the first poll
        self._failure: Exception | None = None  # error of the first poll that cannot be recovered from
        self._chosen: dict[str, str] = {}  # direction -> port that is to be opened instead
        self._stopping, self._wake = False, threading.Event()
        self._thread = threading.Thread(target=self._run, name="ports", daemon=True)

    def __enter__(self) -> Connections:
        self._thread.start()
        self._first_poll_done.wait()
        if self._failure is not None:
            self._close_all()
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(4 * CLOSE_TIMEOUT)
        self._close_all()

    @property
    def stuck(self) -> bool:
        """Whether a driver still blocks while closing a port; the process then cannot exit normally."""
        return any(thread.is_alive() for thread in self._closing)

    @property
    def names(self) -> tuple[str | None, str | None]:
        """Names of the open input and output; None while one is missing."""
        source, output = self._input, self._output  # the polling thread may set them to None
        return (source.name if source else None), (output.name if output else None)

    @property
    def state(self) -> PortsState:
        """The available ports, and the state of both chosen ones."""
        ports = {"input": self._input, "output": self._output}
        states = {
            which: PortState(self._wanted[which], port.name if port else None, self._last_logged.get(which, ""))
            for which, port in ports.items()
        }
        return PortsState(*self._available, states["input"], states["output"])

    def choose(self, direction: str, wanted: str) -> None:
        """Switches the ``"input"`` or ``"output"`` to another port soon, and releases notes that sound on the old one. If the new
        port cannot be opened, the old one stays open and a warning is logged.
        """
        self._chosen[direction] = wanted  # replaces an earlier choice that was not followed yet
        self._wake.set()

    def send(self, message: Sequence[int]) -> None:
        """Sends one raw message. Raises ``PortError`` while the output is missing."""
        output = self._output
        if output is None:
            raise PortError("the output port is missing")
        watchdog = self._watchdog
        if watchdog is not None and message[0] < SYSTEM:
            watchdog.watch(message[0] & 0x0F)
        output.send(message)

    def _open(self, *, only_local: bool = False) -> None:
        """Opens the ports that are not open. Raises ``PortError``; ``PermanentPortError`` at the start if waiting cannot help."""
        faults = []
        for which, opened, open_it in (("output", self._output, self._open_output), ("input", self._input, self._open_input)):
            try:
                if opened is None and (self._is_local(self._wanted[which]) or not only_local):
                    open_it()
            except NoSuchPort as absent:
                self._log_if_changed(which, f"{absent}; waiting for it", logging.WARNING)
            except PortError as error:
                if isinstance(error, PermanentPortError) and self._first_poll_done.is_set():
                    self._log_if_changed(which, str(error), logging.WARNING)
                else:
                    faults.append(error)  # kept until the other port has been tried
        if faults:
            raise next((one for one in faults if isinstance(one, PermanentPortError)), faults[0])

    def _open_output(self) -> None:
        self._use_output(*self._make_output(self._name_of("output")))
        self.callbacks.output_restored()

    def _name_of(self, direction: str) -> str:
        """The port to open: the one that was open before, if it is there, since by now the given name may match several."""
        found, wanted = self._found[direction], self._wanted[direction]
        if found and self._probe is not None and not self._is_local(wanted):
            with contextlib.suppress(PortError):
                find(self._probe.names()[direction == "output"], found, direction)
                return found
        return wanted

    def _use_output(self, output: Output, watchdog: Watchdog | None) -> None:
        self._watchdog = watchdog
        self._found["output"] = output.address if isinstance(output, OutputPort) else ""
        self._output = output  # last, since other threads send to it at once

    def _make_output(self, wanted: str) -> tuple[Output, Watchdog | None]:
        if self._local is not None and self._is_local(wanted):
            output, watchdog = self._local.open_output(), None
        else:
            port = OutputPort(wanted, self._probe)
            output, watchdog = port, Watchdog(port.address) if wanted else None
        self._log_if_changed("output", f"out: {output.name}")
        return output, watchdog

    def _open_input(self) -> None:
        listener = self._listener()
        self._hear(listener)
        self._use_input(self._make_input(self._name_of("input"), listener))

    def _use_input(self, source: Input) -> None:
        self._found["input"] = source.address if isinstance(source, InputPort) else ""
        self._input = source

    def _listener(self) -> MessageListener:
        """A new callback for an input, which passes messages on while it is the one that is heard."""

        def listen(now: float, message: Sequence[int]) -> None:
            with self._hearing:
                if self._heard is listen:
                    self.callbacks.message(now, message)

        return listen

    def _hear(self, listener: MessageListener | None) -> None:
        """From now on only messages of this input count. Waits for a message that is being processed."""
        with self._hearing:
            self._heard = listener

    def _make_input(self, wanted: str, listener: MessageListener) -> Input:
        if self._local is not None and self._is_local(wanted):
            made: Input = self._local.open_input(listener)
            self.callbacks.input_resolution(0.0)
        else:
            self.callbacks.input_resolution(self._probe.resolution if self._probe is not None else 0.0)
            made = InputPort(wanted, _inverted(listener) if self._invert_pedal else listener, self._probe)
        self._log_if_changed("input", f"in: {made.name}")
        return made

    def _follow_choices(self) -> None:
        for direction, change in (("output", self._choose_output), ("input", self._choose_input)):
            wanted = self._chosen.pop(direction, None)
            if wanted is not None:
                try:
                    change(wanted)
                except Exception as error:
                    log.warning("%s; the %s is unchanged", error, direction)
                    time.sleep(PAUSE)

    def _choose_output(self, wanted: str) -> None:
        old, old_watchdog = self._output, self._watchdog
        if self._is_open(old, wanted, "output"):
            self._wanted["output"] = wanted
            return
        output, watchdog = self._make_output(wanted)
        self.callbacks.change_output(lambda: self._use_output(output, watchdog))
        self._wanted["output"] = wanted
        if old_watchdog is not None:
            old_watchdog.close()
        if old is not None:
            self._close(old)

    def _choose_input(self, wanted: str) -> None:
        old = self._input
        if (old is not None and wanted == self._wanted["input"]) or self._is_open(old, wanted, "input"):
            self._wanted["input"] = wanted
            return
        listener = self._listener()
        made = self._make_input(wanted, listener)
        self._hear(None)  # what the former input still sends would not be released
        self.callbacks.input_replaced()
        self._hear(listener)
        self._use_input(made)
        self._wanted["input"] = wanted
        if old is not None:
            self._close(old)

    def _is_open(self, port: Input | Output | None, wanted: str, direction: str) -> bool:
        """Whether ``wanted`` names the port that is connected already. Opening it again would cut its first connection, which
        JACK reports as if it were the new one's. Raises ``PortError`` if it names no port, or several.
        """
        if not isinstance(port, InputPort | OutputPort) or not wanted or self._probe is None or self._is_local(wanted):
            return False
        names = self._probe.names()[0 if direction == "input" else 1]
        return names.count(port.name) == 1 and names[find(names, wanted, direction)] == port.name

    def _is_local(self, wanted: str) -> bool:
        return self._local is not None and wanted == self._local.name

    @property
    def _needs_system(self) -> bool:
        return self._local is None or any(wanted != self._local.name for wanted in self._wanted.values())

    def _run(self) -> None:
        try:
            self._open(only_local=True)
            self._probe = self._first_probe()
            self._open()
            if self._probe is not None:
                self._available = _others(self._probe.names())
        except Exception as error:
            if isinstance(error, PermanentPortError) or not isinstance(error, PortError):
                self._failure = error
                return
            self._log_if_changed("system", f"{error}; trying again", logging.WARNING)
        finally:
            self._first_poll_done.set()
        while not self._stopping:
            self._wake.wait(INTERVAL)
            self._wake.clear()
            try:
                self._poll()
            except Exception as error:  # a failing MIDI system may raise anything, and may recover
                self._log_if_changed("system", f"{error}; trying again", logging.WARNING)

    def _first_probe(self) -> Probe | None:
        """None if no MIDI system runs and none is needed. Raises ``PortError`` if one is needed."""
        if self._needs_system:
            return Probe()
        self._next_probe = time.monotonic() + OPTIONAL_PROBE_INTERVAL
        try:
            return Probe()
        except PortError:
            return None

    def _poll(self) -> None:
        self._follow_choices()
        if self._probe is None:
            if not self._needs_system:
                self._open()
                if time.monotonic() >= self._next_probe:
                    self._probe = self._first_probe()
                return
            self._open(only_local=True)
            self._probe = Probe()  # raises while no system runs
            self._log_if_changed("system", "the MIDI system is back")
        if not self._probe.alive():
            self._log_if_changed("system", "the MIDI system has stopped; waiting for it", logging.WARNING)
            had_input = self._input is not None and not self._is_local(self._wanted["input"])
            self._close_all(keep_local=True)
            self._available = (), ()
            self._last_logged.clear()
            if had_input:
                self._hear(None)
                self.callbacks.input_lost()
            return
        inputs, outputs = self._probe.names()  # raises if a port disappears meanwhile
        self._available = _others((inputs, outputs))
        went = self._probe.gone()
        if self._input is not None and self._input.is_gone(inputs, went):
            self._log_if_changed("input", f"the input {self._input.name} has disappeared; waiting for it", logging.WARNING)
            self._close(self._input)
            self._input = None
            self._hear(None)
            self.callbacks.input_lost()
        if self._output is not None and self._output.is_gone(outputs, went):
            self._log_if_changed("output", f"the output {self._output.name} has disappeared; waiting for it", logging.WARNING)
            gone, self._output = self._output, None
            self._close(gone)
            self._close_watchdog()
        self._follow_changes(self._probe)
        self._open()

    def _follow_changes(self, probe: Probe) -> None:
        """Reports connections cut in a patchbay, where both ports remain. The user has to connect them again."""
        for change in probe.changes():
            for which, port in (("input", self._input), ("output", self._output)):
                if not isinstance(port, InputPort | OutputPort):
                    continue
                was_cut = port.cut
                if not port.follow(change):
                    continue
                if port.cut:
                    ends = (change.source, change.destination)
                    other, ours = ends if port is self._input else ends[::-1]
                    self._log_if_changed(
                        which,
                        f"the {which} was disconnected from {other}; to continue, connect it to {ours} again",
                        logging.WARNING,
                    )
                    if port is self._input:
                        (self.callbacks.source_lost if port.is_linked else self.callbacks.input_lost)()
                elif was_cut:
                    self._log_if_changed(which, f"the {which} is connected again, to {port.name}")
                    if port is self._output:
                        self.callbacks.output_restored()

    def _close_watchdog(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.close()

    def _close_all(self, *, keep_local: bool = False) -> None:
        self._close_watchdog()
        source, output, probe = self._input, self._output, self._probe
        self._input = source if keep_local and self._is_local(self._wanted["input"]) else None
        self._output = output if keep_local and self._is_local(self._wanted["output"]) else None
        self._probe = None
        for port in (source, output, probe):
            if port is not None and port is not self._input and port is not self._output:
                self._close(port)

    def _close(self, port: Input | Probe) -> None:
        self._closing.append(close_with_timeout(port))

    def _log_if_changed(self, what: str, text: str, level: int = logging.INFO) -> None:
        if self._last_logged.get(what) != text:
            log.log(level, "%s", text)
        self._last_logged[what] = text


def _inverted(listener: MessageListener) -> MessageListener:
    """For an input whose sustain pedal has the reversed polarity."""

    def listen(now: float, message: Sequence[int]) -> None:
        if len(message) == 3 and message[0] & 0xF0 == 0xB0 and message[1] == SUSTAIN:
            message = (message[0], message[1], 127 - message[2])
        listener(now, message)

    return listen


def _others(names: tuple[Sequence[str], Sequence[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names without those of our own ports."""
    inputs, outputs = (tuple(name for name in some if not name.startswith(NAME)) for some in names)
    return inputs, outputs
