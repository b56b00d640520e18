"""OSC: steering from any program or surface that speaks it, over UDP, and telling those who asked what changes.

    /perceivers/<control> value      sets it, clamped to its range; the *other* subscribers receive the same message
    /perceivers/<control>            replies with the same address and the current value
    /perceivers/<command> [args]     runs a command; a lone number is a push button's state: 0 (released) does nothing;
                                     an impulse (I or N) runs it too
    /perceivers/<query>              replies with the same address and what it answers: state, stats, states
    /perceivers/subscribe [port]     sends to this port of the sender (without one: where replies go) every control, state
                                     and stats, and from then on what changes, messages and errors
    /perceivers/unsubscribe [port]   ends that; without a port, for everything the sender subscribed
    /perceivers/list                 replies /perceivers/list once a control:
                                     name, value, low, high, unit, help, kind, default, choices (joined by commas)

Sent to the subscribers: `/perceivers/state text`, `/perceivers/stats name value name value ...`, `/perceivers/message text`,
`/perceivers/error code text`. Whoever has sent a command is told messages and errors too, for a minute: much of what a command
does is done later. A mistake is told to its sender and to the subscribers; the codes are malformed, unknown, value, arguments,
command, port, time.
Float controls travel as `f`, int ones as `i`, switches as `i` 0 or 1, choices as `s`; a choice's range is that of its index,
which may be sent in place of its name. The messages of a bundle wait for its time; one more than `MAX_AHEAD` seconds away is
refused.
"""

import contextlib
import inspect
import logging
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pythonosc.osc_message_builder import BuildError

from engine.errors import in_words
from perceivers_live.controls.registry import CONTROLS, ControlError, Controls, Value, nearest, printable, shown
from perceivers_live.osc.audience import Audience
from perceivers_live.osc.packets import MAX_DATAGRAM, Malformed, Message, messages_of
from perceivers_live.osc.ration import Ration
from perceivers_live.osc.schedule import Schedule
from perceivers_live.osc.wire import Address, listen, packet_of

PREFIX = "/perceivers/"
MAX_BACKLOG = 8192  # datagrams held while a burst is worked off; the oldest make room, so that the last value always wins
MAX_BACKLOG_BYTES = 1 << 19  # as many; of large ones, which hold many messages, fewer
MAX_REPLIES = 2000  # a second; a flood of questions gets no more
MAX_TOLD = 20  # mistakes of somebody's, a second, that the others are told of
MAX_AHEAD = 60.0  # seconds; a bundle for later than that is from a clock that is wrong
MAX_SCHEDULED = 1024  # messages that wait for their time
_ECHO_INTERVAL = 0.01  # seconds; a subscriber that is busy drawing must not lose the last of many changes
_QUIET = 1.0  # seconds between two log lines about what arrives
_TOLD_FIRST = ("state", "stats")  # to a new subscriber, after the controls
_SENT_ONLY = ("message", "error")  # never answered when they arrive, or two daemons would answer each other for ever

log = logging.getLogger(__name__)
Query = Callable[[], Sequence[Value]]


class OscServer:
    """Serves `controls` and `commands` from its own thread, started at once, until `close()`.

    Args:
        controls: read, set and listened to.
        commands: name -> function, called on the server's thread with the message's arguments; it should return soon.
        queries: name -> function without arguments that returns what there is to tell, at least one value: to whoever asks, and,
            but for `states`, to every new subscriber.
        host: address to listen on. Loopback also means that only loopback senders are heard.
        allow: who else is heard where it is not loopback: addresses and networks, separated by commas.
        port: UDP port to listen on; 0 takes a free one (see the attribute `port`).
        reply_port: port of the sender's host that replies go to; 0: the one it sent from.
        stats_interval: least seconds between two stats messages.

    Raises:
        OscError: the address cannot be used, or the port is taken; or it is beyond loopback, and nobody is allowed.
        ValueError: a command has the name of a control or of one of OSC's own messages.
    """

    def __init__(
        self,
        controls: Controls,
        commands: Mapping[str, Callable[..., object]],
        host: str = "127.0.0.1",
        port: int = 9010,
        reply_port: int = 0,
        *,
        queries: Mapping[str, Query] | None = None,
        allow: str = "",
        stats_interval: float = 0.25,
    ) -> None:
        self._own = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe, "list": self._list}
        self._queries = dict(queries or {})
        reserved = {*CONTROLS, *self._own, *_SENT_ONLY}
        taken = {*commands, *self._queries} & reserved | set(commands) & {*self._queries, *_TOLD_FIRST}
        if taken:
            raise ValueError(f"command names in use: {', '.join(sorted(taken))}")
        self._controls = controls
        self._commands = {name: (command, _signature(command)) for name, command in commands.items()}
        self._reply_port = reply_port
        self._socket, self._is_allowed = listen(host, port, allow)
        self.host, self.port = self._socket.getsockname()[:2]
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._audience = Audience()
        self._lock = threading.Lock()  # guards the next one
        self._changes: dict[str, tuple[Value, object]] = {}  # control -> latest value and who set it, yet to be echoed
        self._backlog, self._backlog_bytes = deque[tuple[bytes, Address]](), 0
        self.left_out = 0  # packets, so far
        self._stats_interval, self._next_stats = stats_interval, 0.0
        self._next_echo, self._quiet_until, self._withheld = 0.0, 0.0, 0
        self._scheduled = Schedule[tuple[Message, Address]](MAX_SCHEDULED)
        self._replies, self._told = Ration(MAX_REPLIES), Ration(MAX_TOLD)
        self._closing = False
        self._stop_listening = controls.on_change(self._changed)
        self._thread = threading.Thread(target=self._run, name="osc", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the thread and frees the port; waits for a command in progress for half a second at most."""
        self._stop_listening()
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(0.5)

    def send_state(self, text: str) -> None:
        """Tells every subscriber what the daemon is doing. Like every send: from any thread, never waits, never raises."""
        self._publish(self._subscribers(), "state", text)

    def send_message(self, text: str) -> None:
        """Tells every subscriber, and who has sent a command lately, what was done."""
        self._publish(self._audience.everybody(), "message", text)

    def send_error(self, code: str, message: str) -> None:
        """Tells the same ones of a fault: a code for programs, a line for people."""
        self._publish(self._audience.everybody(), "error", code, message)

    def send_stats(self, stats: Mapping[str, float]) -> None:
        """Tells every subscriber the figures, as name, value, name, value ...; dropped if the last ones are too recent."""
        now = time.monotonic()
        if now >= self._next_stats:
            self._next_stats = now + self._stats_interval
            self._publish(self._subscribers(), "stats", *(part for pair in stats.items() for part in pair))

    def _subscribers(self) -> list[Address]:
        return [target for target, _ in self._audience.subscribers()]

    # The server's thread.

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._socket, self._waker, self._woken:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing:
                try:
                    selector.select(self._patience())
                    self._receive()
                    for _ in range(min(len(self._backlog), 64)):  # then look again: the kernel's buffer is the smaller one
                        self._handle(*self._oldest())
                    self._follow_scheduled()
                    if time.monotonic() >= self._next_echo:
                        self._echo_changes()
                except Exception as error:  # nothing that arrives may end the thread
                    self._note(f"{type(error).__name__}: {error}")

    def _patience(self) -> float | None:
        """Seconds until there is something to do, if nothing arrives; None: for ever."""
        if self._backlog:
            return 0.0
        now = time.monotonic()
        echo = max(0.0, self._next_echo - now) if self._changes else None
        return min((wait for wait in (echo, self._scheduled.wait(now)) if wait is not None), default=None)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        for _ in range(1024):
            try:
                datagram, sender = self._socket.recvfrom(65535)
            except BlockingIOError:
                return
            except ConnectionError:  # Windows: an earlier send found nobody
                continue
            except OSError as error:
                self._note(f"cannot receive: {error}")
                time.sleep(0.05)  # the network is down: do not spin
                return
            if not self._is_allowed(sender[0]):
                self._note(f"ignored a sender that is not allowed: {sender[0]}")
            elif sender[:2] != (self.host, self.port):  # our own echo
                self._keep(datagram[: MAX_DATAGRAM + 1], sender)

    def _keep(self, datagram: bytes, sender: Address) -> None:
        self._backlog.append((datagram, sender))
        self._backlog_bytes += len(datagram)
        while len(self._backlog) > MAX_BACKLOG or self._backlog_bytes > MAX_BACKLOG_BYTES:
            self._oldest()
            self.left_out += 1

    def _oldest(self) -> tuple[bytes, Address]:
        datagram, sender = self._backlog.popleft()
        self._backlog_bytes -= len(datagram)
        return datagram, sender

    def _handle(self, datagram: bytes, sender: Address) -> None:
        try:
            messages = messages_of(datagram)
        except ValueError as error:
            self._refuse(sender, "malformed", f"not an OSC packet: {error}")
            return
        clock, now = time.monotonic(), time.time()  # once, so that what belongs together stays in order
        for message in messages:
            if isinstance(message, Malformed):
                self._refuse(sender, "malformed", f"not an OSC message: {message.reason}")
            elif (ahead := message.due - now) <= 0:
                self._dispatch(message.address, message.values, sender)
            elif ahead > MAX_AHEAD:
                self._refuse(sender, "time", f"{shown(message.address)}: {ahead:.0f} s ahead, allowed up to {MAX_AHEAD:.0f} s")
            elif not self._scheduled.add(clock + ahead, (message, sender)):
                self._refuse(sender, "time", f"{shown(message.address)}: {MAX_SCHEDULED} messages wait for their time already")

    def _follow_scheduled(self) -> None:
        now = time.monotonic()
        while (due := self._scheduled.take(now)) is not None:
            message, sender = due
            self._dispatch(message.address, message.values, sender)

    def _dispatch(self, address: str, values: list[Any], sender: Address) -> None:
        name = address.removeprefix(PREFIX)
        if address == name:  # meant for someone else, or misspelt: answered no more often than logged
            text = f"{shown(address)} does not begin with {PREFIX}"
            if self._note(text):
                self._tell_of_mistake(sender, "unknown", text)
        elif name in CONTROLS:
            self._control(name, values, sender)
        elif name in self._commands:
            self._command(name, values, sender)
        elif name in self._own:
            self._own[name](values, sender)
        elif name in self._queries:
            self._query(name, values, sender)
        elif name not in (*_SENT_ONLY, *_TOLD_FIRST) and self._replies.left():  # to look for the nearest takes a while
            close = nearest(name, [*CONTROLS, *self._commands, *self._own, *self._queries])
            self._refuse(sender, "unknown", f"unknown address {shown(address)}, nearest is {PREFIX}{close}")

    def _control(self, name: str, values: list[Any], sender: Address) -> None:
        if not values:
            self._echo_changes()  # who asks has heard what came before
            self._reply(sender, name, self._controls.get(name))
        elif len(values) > 1:
            self._refuse(sender, "value", f"{name}: found {len(values)} values, allowed one: {CONTROLS[name].allowed}")
        elif not _is_told(values[0], self._controls.get(name)):
            try:
                self._controls.set(name, values[0], source=sender)
            except ControlError as error:
                self._refuse(sender, "value", str(error))

    def _command(self, name: str, values: list[Any], sender: Address) -> None:
        command, signature = self._commands[name]
        values = [] if values == [None] else values
        if signature is not None and not _fits(signature, values):
            if len(values) != 1 or not isinstance(values[0], (bool, int, float)) or not _fits(signature, []):
                allowed = ", ".join(signature.parameters) or "none"
                self._refuse(sender, "arguments", f"{name}: found {shown(values)}, allowed: {allowed}")
                return
            if not values[0]:
                return
            values = []
        self._audience.asked(self._reply_address(sender))
        try:
            command(*values)
        except Exception as error:  # whatever a command raises, the sender is told
            self._refuse(sender, "command", f"{name}: {in_words(error)}")

    def _query(self, name: str, values: list[Any], sender: Address) -> None:
        if values:  # another daemon's answer: answering it would never end
            return
        try:
            self._reply(sender, name, *self._queries[name]())
        except Exception as error:
            self._refuse(sender, "command", f"{name}: {in_words(error)}")

    def _subscribe(self, values: list[Any], sender: Address) -> None:
        target = self._target(values, sender)
        if target is not None:
            self._echo_changes()  # to the others; the new one is told where they led
            self._audience.subscribe(target, sender)
            self._tell_everything(target)

    def _tell_everything(self, target: Address) -> None:
        """How it stands now, for a new subscriber."""
        queries = {name: self._queries[name] for name in _TOLD_FIRST if name in self._queries}
        messages = [(name, [value]) for name, value in self._controls.snapshot().items()]
        for name, values in [*messages, *((name, list(query())) for name, query in queries.items())]:
            if self._replies.take():
                self._send_to(target, name, *values)

    def _unsubscribe(self, values: list[Any], sender: Address) -> None:
        target = self._target(values, sender)
        if target is not None:
            self._audience.unsubscribe(target)
            if not values:
                self._audience.unsubscribe_all(sender)

    def _target(self, values: list[Any], sender: Address) -> Address | None:
        """Where a subscriber wants to be told: never another host than its own. None, and an answer, if its port cannot be
        used.
        """
        if not values:
            return self._reply_address(sender)
        port = values[0]
        if (
            len(values) == 1
            and isinstance(port, (int, float))
            and not isinstance(port, bool)
            and 1 <= port <= 65535
            and port == int(port)
        ):
            target = (sender[0], int(port), *sender[2:])
            if target[:2] != (self.host, self.port):
                return target
        self._refuse(sender, "port", f"found {shown(values)}, allowed one port, 1..65535, that is not the daemon's own")
        return None

    def _list(self, values: list[Any], sender: Address) -> None:
        if values:  # another daemon's reply: answering it would never end
            return
        for name, value in self._controls.snapshot().items():
            control = CONTROLS[name]
            about = (control.unit, control.help, control.kind, control.default, ",".join(control.choices))
            self._reply(sender, "list", name, value, control.low, control.high, *about)

    # Sending.

    def _changed(self, name: str, value: Value, source: object) -> None:
        with self._lock:
            self._changes[name] = (value, source)
        if threading.current_thread() is not self._thread:
            self._wake()

    def _echo_changes(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, {}
        subscribers = self._audience.subscribers() if changes else []
        if changes:
            self._next_echo = time.monotonic() + _ECHO_INTERVAL
        for name, (value, source) in changes.items():
            for target, owner in subscribers:
                if source not in (target, owner):
                    self._send_to(target, name, value)

    def _publish(self, targets: Iterable[Address], name: str, *values: Value) -> None:
        for target in targets:
            self._send_to(target, name, *values)

    def _refuse(self, sender: Address, code: str, message: str) -> None:
        self._note(message)
        self._tell_of_mistake(sender, code, message)

    def _tell_of_mistake(self, sender: Address, code: str, message: str) -> None:
        """The sender, and, unless there are too many, the subscribers."""
        self._reply(sender, "error", code, message)
        if self._told.take():
            others = (target for target in self._subscribers() if target != self._reply_address(sender))
            self._publish(others, "error", code, message)

    def _reply(self, sender: Address, name: str, *values: Value) -> None:
        if self._replies.take():
            self._send_to(self._reply_address(sender), name, *values)

    def _reply_address(self, sender: Address) -> Address:
        return (sender[0], self._reply_port or sender[1], *sender[2:])

    def _send_to(self, target: Address, name: str, *values: Value) -> None:
        try:
            self._socket.sendto(packet_of(PREFIX + name, values), target)
        except (OSError, BuildError, ValueError, ArithmeticError) as error:  # a full buffer, no route, no OSC value
            if not self._closing:
                self._note(f"cannot send to {target[0]}:{target[1]}: {error}")

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it needs no waking
            self._waker.send(b"\0")

    def _note(self, text: str) -> bool:
        """Logs one line, unless the last one is too recent; returns whether it did."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._withheld += 1
            return False
        log.warning("OSC: %s%s", printable(text), f" ({self._withheld} more withheld)" if self._withheld else "")
        self._quiet_until, self._withheld = now + _QUIET, 0
        return True


def _is_told(value: object, current: Value) -> bool:
    """Whether a subscriber says again what it was told. OSC's floats have 32 bits, and need not change ours of 64."""
    return isinstance(value, float) and isinstance(current, float) and (value,) == struct.unpack("f", struct.pack("f", current))


def _signature(command: Callable[..., object]) -> inspect.Signature | None:
    """The parameters of a command; None where Python cannot tell."""
    try:
        return inspect.signature(command)
    except (TypeError, ValueError):
        return None


def _fits(signature: inspect.Signature, values: list[Any]) -> bool:
    try:
        signature.bind(*values)
    except TypeError:
        return False
    return True
