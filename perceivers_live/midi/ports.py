"""MIDI ports: found by a part of their name and opened, or created as virtual ports. The driver's callback timestamps input.

python-rtmidi is imported only when a port is needed, so that everything else works on a machine without a MIDI system.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from engine.errors import UserError, program
from engine.midi import MessageListener
from engine.realtime import DRIVER, set_realtime
from perceivers_live.midi.jack_watch import ConnectionChange, JackWatch, Refused, silence_libraries

log = logging.getLogger(__name__)
NAME = "perceivers-live"
ATTEMPTS, ATTEMPT_PAUSE = 3, 0.3  # to connect to a MIDI system, and seconds between them: a busy JACK server may refuse a client
QUIET = 0.05  # seconds without a message after which an input counts as quiet
CLOSE_TIMEOUT = 0.5  # seconds to wait for a port to close; after that it closes in the background
BEFORE_CLOSE = 0.05  # seconds to wait before a port is closed, so that JACK has notified its clients of the previous change
ALSA_PORT = re.compile(r" \d+:\d+$")  # client and port at the end of a name: other numbers after a reconnection
ALSA_NUMBERS = re.compile(rf"{ALSA_PORT.pattern}| ?\(\d+(:\d+)?\)")  # also a process id in a client's name
Made = TypeVar("Made")


class Input(Protocol):
    """An open input."""

    name: str

    def is_gone(self, names: Sequence[str], gone: Container[str] = ()) -> bool: ...

    def close(self) -> None: ...


class Output(Input, Protocol):
    """An open output."""

    def send(self, message: Sequence[int]) -> None: ...


class LocalPorts(Protocol):
    """An input and an output of this program, both called ``name``, that need no MIDI system."""

    name: str

    def open_input(self, on_message: MessageListener) -> Input: ...

    def open_output(self) -> Output: ...


class PortError(UserError):
    """A port is not available. The message is one line for the user: ``what`` is wrong, and ``advice`` what to do."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}: {advice}" if advice else what)
        self.what, self.advice = what, advice


class NoSuchPort(PortError):
    """No port matches the name now."""


class PermanentPortError(PortError):
    """Waiting cannot help: the name matches several ports, or this system has no such ports or no MIDI."""


def with_retries(make: Callable[[], Made]) -> Made:
    """What ``make`` returns; tries again if it fails. Raises ``PortError``."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return make()
        except PermanentPortError:
            raise
        except Exception as error:  # rtmidi raises various types
            if not left:
                if isinstance(error, PortError):
                    raise
                raise PortError(f"the MIDI system refuses a client ({error})") from error
        time.sleep(ATTEMPT_PAUSE)
    raise AssertionError


def _system() -> tuple[Any, int]:
    """The rtmidi module and the first MIDI API of this computer that answers. Raises ``PortError`` if none does."""
    try:
        import rtmidi
    except ImportError as error:
        raise PermanentPortError(f"no MIDI system ({error})", _advice(libraries=False)) from error
    os.environ.setdefault("JACK_NO_START_SERVER", "1")  # listing ports must not start a server
    if not log.isEnabledFor(logging.DEBUG):
        silence_libraries()
    return rtmidi, with_retries(lambda: _answering_api(rtmidi))


def _answering_api(rtmidi: Any) -> int:
    """The first MIDI API that answers now. Raises ``PortError`` if none does."""
    for api in rtmidi.get_compiled_api():
        if api == rtmidi.API_RTMIDI_DUMMY or (api == rtmidi.API_LINUX_ALSA and not os.path.exists("/dev/snd/seq")):  # noqa: PTH110
            continue
        if _answers(rtmidi, api):
            return int(api)
    tried = "neither ALSA nor JACK answers" if sys.platform == "linux" else "none answers"
    raise PortError(f"no MIDI system ({tried})", _advice())


def system_name() -> str:
    """The name of the MIDI system. Raises ``PortError`` without one."""
    rtmidi, api = _system()
    return str(rtmidi.get_api_display_name(api))


def _answers(rtmidi: Any, api: int) -> bool:
    """Whether a MIDI API runs here. Without a server JACK lists no ports, like a server without any; then a virtual port is
    created, which another client must see.
    """
    with ExitStack() as clients:
        try:
            probe = rtmidi.MidiIn(api, NAME)
            clients.callback(probe.delete)
            if probe.get_ports() or api != rtmidi.API_UNIX_JACK:
                return True
            mine = rtmidi.MidiOut(api, f"{NAME}-probe")
            clients.callback(mine.delete)
            clients.callback(time.sleep, BEFORE_CLOSE)  # see ``_Port.close``
            mine.open_virtual_port("probe")
            return bool(probe.get_ports())
        except Exception as error:  # rtmidi raises various types
            log.debug("%s does not answer: %s", rtmidi.get_api_display_name(api), error)
            return False


def _advice(*, libraries: bool = True) -> str:
    """What to do if no MIDI system answers. ``libraries``: whether the client libraries of ALSA and JACK are installed."""
    page = f"; or play in the browser: {program()} page"
    if sys.platform == "linux":
        packages = ([] if libraries else ["libasound2", "libjack-jackd2-0"]) + ([] if shutil.which("jackd") else ["jackd2"])
        missing = f"; what is missing: sudo apt-get install -y {' '.join(packages)}" if packages else ""
        return f"start JACK, or load ALSA's sequencer (sudo modprobe snd-seq){missing}{page}"
    return f"install loopMIDI, or Windows MIDI Services{page}" if sys.platform == "win32" else page.removeprefix("; or ")


def list_ports() -> tuple[list[str], list[str]]:
    """Names of the inputs and outputs of this computer, without ours. Raises ``PortError`` without a MIDI system."""
    probe = Probe()
    try:
        inputs, outputs = (list(filter(_is_foreign, names)) for names in probe.names())
        return inputs, outputs
    finally:
        close_with_timeout(probe)


class Probe:
    """Lists the ports of this computer. Raises ``PortError`` without a MIDI system."""

    def __init__(self) -> None:
        self.system = rtmidi, api = _system()
        self._watch: JackWatch | None = None
        with ExitStack() as made:
            self._in = with_retries(lambda: rtmidi.MidiIn(api, f"{NAME}-look"))
            made.callback(self._in.delete)
            self._out = with_retries(lambda: rtmidi.MidiOut(api, f"{NAME}-look"))
            made.callback(self._out.delete)
            if api == rtmidi.API_UNIX_JACK:
                self._watch = with_retries(_jack_watch)
            made.pop_all()

    def names(self) -> tuple[list[str], list[str]]:
        """Names of the inputs and outputs. Raises ``PortError`` if they change meanwhile."""
        try:
            return _names(self._in), _names(self._out)
        except Exception as error:  # rtmidi counts the ports, then queries each
            raise PortError(f"the ports cannot be listed ({error})") from error

    def gone(self) -> set[str]:
        """Names of ports that disappeared since the last call, even if they came back. JACK only, else empty."""
        return self._watch.gone() if self._watch is not None else set()

    def changes(self) -> list[ConnectionChange]:
        """Connections of this process's ports made or cut since the last call. JACK only, else empty."""
        watch = self._watch
        if watch is None:
            return []
        ours = [change for change in watch.changes() if NAME in change.source + change.destination]
        return [change for change in ours if any(port.startswith(NAME) and watch.is_ours(port) for port in change[:2])]

    @property
    def resolution(self) -> float:
        """Interval in seconds to which the times of incoming messages are quantized: JACK's period; 0 with other systems."""
        return self._watch.period if self._watch is not None else 0.0

    def alive(self) -> bool:
        """Whether the MIDI system still runs. Only JACK can stop while we run."""
        return self._watch is None or not self._watch.dead

    def close(self) -> None:
        """Closes all clients; on JACK with pauses, as in ``_Port.close``: its library may also hang."""
        if self._watch is None:
            self._in.delete()
            self._out.delete()
            return
        for close in (self._in.delete, self._out.delete, self._watch.close):
            time.sleep(BEFORE_CLOSE)
            close()


def close_with_timeout(port: Input | Probe) -> threading.Thread:
    """Closes a port in a thread, waiting at most ``CLOSE_TIMEOUT``: drivers of a stopped system may block. Returns the thread."""
    thread = threading.Thread(target=port.close, name="closing", daemon=True)
    thread.start()
    thread.join(CLOSE_TIMEOUT)
    return thread


def _jack_watch() -> JackWatch | None:
    """None if the JACK library cannot be used, because it is rtmidi's own. Raises ``Refused``."""
    try:
        return JackWatch(f"{NAME}-watch")
    except Refused:  # without it the end of the server would go unnoticed
        raise
    except OSError:
        return None


def _names(port: Any) -> list[str]:
    """Names of all ports that an rtmidi client sees. On Windows rtmidi appends port numbers, which change as ports come and go:
    they are removed.
    """
    names = [name or "" for name in port.get_ports()]
    return [re.sub(r" \d+$", "", name) for name in names] if sys.platform == "win32" else names


def find(names: Sequence[str], wanted: str, kind: str) -> int:
    """Index of the one name that contains ``wanted`` (case-insensitive); an exact match takes precedence. If ports share a name,
    ``NAME#2`` is the second. Numbers that ALSA gives to a client may differ if nothing else matches. Ports of this program match
    only a text that contains its name. Raises ``PortError``.
    """
    matching = _matching(names, wanted)
    if not matching and ALSA_PORT.search(wanted):
        matching = _matching([ALSA_NUMBERS.sub("", name) for name in names], ALSA_NUMBERS.sub("", wanted))
    if not matching and (numbered := re.fullmatch(r"(.+)#([1-9]\d*)", wanted)):
        alike = _matching(names, numbered[1])
        if len({names[i] for i in alike}) == 1 and int(numbered[2]) <= len(alike):
            return alike[int(numbered[2]) - 1]
    if len(matching) == 1:
        return matching[0]
    there = ", ".join(repr(name) for name in ([names[i] for i in matching] or filter(_is_foreign, names))) or "none"
    problem = "matches several" if matching else "matches none"
    raise (PermanentPortError if matching else NoSuchPort)(f"{kind} port {wanted!r} {problem} of the ports; there are: {there}")


def _matching(names: Sequence[str], wanted: str) -> list[int]:
    exact = [i for i, name in enumerate(names) if name.lower() == wanted.lower()]
    part = wanted.lower()
    return exact or [i for i, name in enumerate(names) if part in name.lower() and (_is_foreign(name) or NAME in part)]


def _is_foreign(name: str) -> bool:
    """Whether a port belongs to another program."""
    return not name.startswith(NAME)


class _Port:
    """A port by name. ``probe`` finds it first: each port is a client, and a JACK server may fail if many come and go."""

    def __init__(self, kind: str, wanted: str, probe: Probe | None = None) -> None:
        flag = kind.removesuffix("put")
        self._wanted, self._lock, self._closed = wanted, threading.Lock(), False
        self._side, self._linked, self.cut = kind, set[str](), False
        self._alike = 1  # number of ports of this name
        self.address = wanted  # a text that finds the port again
        if wanted and probe is not None:
            find(probe.names()[kind == "output"], wanted, kind)
        rtmidi, api = probe.system if probe is not None else _system()
        self.port: Any = with_retries(lambda: (rtmidi.MidiIn if kind == "input" else rtmidi.MidiOut)(api, f"{NAME}-{flag}"))
        try:
            if wanted:
                names = _names(self.port)
                index = find(names, wanted, kind)
                self.name = names[index]
                self._alike = names.count(self.name)
                self.address = self.name if self._alike == 1 else wanted
                self.port.open_port(index, "midi")
            elif sys.platform == "win32":
                raise PermanentPortError(f"Windows has no virtual ports: name one with --{flag} (loopMIDI makes them)")
            else:
                self.name = f"{NAME} (virtual)"
                self.port.open_virtual_port("midi" if api == rtmidi.API_UNIX_JACK else NAME)
        except PortError:
            self.port.delete()
            raise
        except Exception as error:
            self.port.delete()
            raise PortError(f"{kind} port {wanted or 'virtual'!r} cannot be opened ({error})") from error

    def is_gone(self, names: Sequence[str], gone: Container[str] = ()) -> bool:
        """Whether the port that this is connected to, or one of the same name, is missing from ``names``, or is in ``gone``.
        A virtual port is never gone.
        """
        alike, self._alike = self._alike, max(self._alike, names.count(self.name))
        return self._wanted != "" and (names.count(self.name) < alike or self.name in gone)

    @property
    def is_linked(self) -> bool:
        """Whether it is connected to another port; known on JACK only."""
        return bool(self._linked)

    def follow(self, change: ConnectionChange) -> bool:
        """Processes a connection that was made or cut; returns whether it is one of this port's. ``cut`` is true from the time a
        connection was cut until another is made. The cut of an unknown connection belongs to an earlier port and is ignored.
        """
        ends = (change.source, change.destination)
        other, mine = ends if self._side == "input" else ends[::-1]
        if not mine.startswith(f"{NAME}-{self._side.removesuffix('put')}") or change.made == (other in self._linked):
            return False
        self._linked ^= {other}
        self.cut = not change.made
        return True

    def close(self) -> None:
        """Closes the port, after a pause of ``BEFORE_CLOSE``. JACK's library may crash if a port is closed while it is being
        notified of another client that has come or gone (jack2's issue 216), as when several ports are closed in a row.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        time.sleep(BEFORE_CLOSE)
        self.port.close_port()
        self.port.delete()


class InputPort(_Port):
    """An input port (``wanted``: part of its name; empty: a virtual port). ``on_message`` runs on the driver's thread."""

    def __init__(self, wanted: str, on_message: MessageListener, probe: Probe | None = None) -> None:
        super().__init__("input", wanted, probe)
        self._closing, self._quiet = False, threading.Event()
        priority_set = False

        def callback(event: tuple[Sequence[int], float], _: object) -> None:
            nonlocal priority_set
            if self._closing:
                self._end()
                return
            on_message(time.perf_counter(), event[0])  # timestamp first; rtmidi's delta times accumulate errors
            if not priority_set:
                priority_set = True
                set_realtime(DRIVER)

        self.port.ignore_types(timing=False)  # MIDI clock, which rtmidi leaves out by default
        self.port.set_callback(callback)

    def _end(self) -> None:
        self.port.cancel_callback()
        self._quiet.set()

    def close(self) -> None:
        """Closes the port. python-rtmidi frees the callback even while a message is being delivered to it, and crashes later. So
        the callback is cancelled on the driver's thread, by the next message; from this thread only if no message comes.
        """
        self._closing = True
        self._quiet.wait(QUIET)
        super().close()


class OutputPort(_Port):
    """An output port (``wanted``: part of its name; empty: a virtual port)."""

    def __init__(self, wanted: str, probe: Probe | None = None) -> None:
        super().__init__("output", wanted, probe)

    def send(self, message: Sequence[int]) -> None:
        """Sends one raw message. Raises ``PortError`` once closed, and any error of the driver."""
        with self._lock:
            if self._closed:
                raise PortError("the output port is closed")
            self.port.send_message(message)
