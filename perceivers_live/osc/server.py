"""The OSC server (UDP): sets controls, runs commands, answers queries, and sends changes to subscribers.

    /perceivers/<control> value      sets the control, clamped to its range; the *other* subscribers receive the same message
    /perceivers/<control>            replies with the same address and the current value
    /perceivers/<command> [args]     runs the command; a single number is the state of a push button: 0 (released) does
                                     nothing; an impulse (I or N) runs the command too
    /perceivers/<query>              replies with the same address and the result; the queries are state, stats, states
    /perceivers/subscribe [port]     sends all controls, state and stats to this port of the sender (default: the port that
                                     replies go to), then changes, messages and errors
    /perceivers/unsubscribe [port]   ends that subscription; without a port, all subscriptions of the sender
    /perceivers/list                 replies with one /perceivers/list for each control:
                                     name, value, low, high, unit, help, kind, default, choices (joined by commas)

Subscribers receive ``/perceivers/state text``, ``/perceivers/stats name value name value ...``, ``/perceivers/message text`` and
``/perceivers/error code text``. The sender of a command receives messages and errors for a minute too, because many commands
finish later. A sender's error is sent to that sender and to the subscribers; the codes are malformed, unknown, value, arguments,
command, port, time, and those of the session: engine, state, learn, recording. Float controls are sent as ``f``, int controls as
``i``, switches as ``i`` 0 or 1, choices as ``s``. The range of a choice is that of its index, which can be sent instead of its
name. The messages of a bundle take effect at its time tag; a time more than ``MAX_AHEAD`` seconds ahead is rejected.
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
from engine.text import printable, shown
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.control import ControlError, Value, nearest
from perceivers_live.controls.registry import Controls
from perceivers_live.osc.packets import MAX_DATAGRAM, Malformed, Message, messages_of
from perceivers_live.osc.recipients import Recipients
from perceivers_live.osc.schedule import Schedule
from perceivers_live.osc.wire import Address, listen, packet_of
from perceivers_live.rate_limit import RateLimit

PREFIX = "/perceivers/"
MAX_BACKLOG = 8192  # queued datagrams; the oldest are dropped, so that the last value of a control always takes effect
MAX_BACKLOG_BYTES = 1 << 19  # limits the backlog if datagrams are large
MAX_REPLIES = 2000  # per second; further requests are not answered
MAX_SUGGESTIONS = 20  # per second, of the nearest name for an unknown address, because finding it is slow
MAX_PUBLISHED_ERRORS = 20  # errors of senders per second that are sent to all subscribers
MAX_AHEAD = 60.0  # seconds; a bundle with a later time tag comes from a wrong clock
MAX_SCHEDULED = 1024  # messages of bundles that are scheduled for later
_UPDATE_INTERVAL = 0.01  # seconds between two updates; a slow subscriber would lose packets of a faster stream
_LOG_INTERVAL = 1.0  # seconds between two log lines about incoming packets
_INITIAL_QUERIES = ("state", "stats")  # sent to a new subscriber after the controls
_OUTGOING = ("message", "error")  # ignored on arrival: two daemons would answer each other for ever

log = logging.getLogger(__name__)
Query = Callable[[], Sequence[Value]]


class OscServer:
    """Serves ``controls`` and ``commands`` on its own thread, which the constructor starts, until ``close()``.

    Args:
        controls: the controls to read and set; their changes are sent to subscribers.
        commands: name -> function, called on the server's thread with the message's arguments; it should return soon.
        queries: name -> function without arguments that returns at least one value. The results of ``state`` and ``stats`` are
            also sent to each new subscriber.
        host: address to listen on. On a loopback address only loopback senders are accepted.
        allow: other senders that are accepted if ``host`` is not loopback: addresses and networks, separated by commas.
        port: UDP port to listen on; 0 takes a free one (see the attribute ``port``).
        reply_port: port of the sender's host that replies are sent to; 0: the port that it sent from.
        stats_interval: minimum number of seconds between two stats messages.

    Raises:
        ListenError: the address cannot be used, the port is taken, or the address is beyond loopback and ``allow`` is empty.
        ValueError: a command has the name of a control, a query or a built-in message.
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
        self._builtins = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe, "list": self._list}
        self._queries = dict(queries or {})
        reserved = {*CONTROLS, *self._builtins, *_OUTGOING}
        taken = {*commands, *self._queries} & reserved | set(commands) & {*self._queries, *_INITIAL_QUERIES}
        if taken:
            raise ValueError(f"command names in use: {', '.join(sorted(taken))}")
        self._controls = controls
        self._commands = {name: (command, _signature(command)) for name, command in commands.items()}
        self._reply_port = reply_port
        self._socket, self._is_allowed = listen(host, port, allow)
        self.host, self.port = self._socket.getsockname()[:2]
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._wake_receiver.setblocking(False)
        self._recipients = Recipients()
        self._lock = threading.Lock()  # guards the next attribute
        self._changes: dict[str, tuple[Value, object]] = {}  # unsent changes: control -> (value, source)
        self._backlog, self._backlog_bytes = deque[tuple[bytes, Address]](), 0
        self.dropped = 0  # number of packets dropped so far
        self._stats_interval, self._next_stats = stats_interval, 0.0
        self._next_update, self._next_log, self._suppressed = 0.0, 0.0, 0
        self._scheduled = Schedule[tuple[Message, Address]](MAX_SCHEDULED)
        self._replies, self._published_errors = RateLimit(MAX_REPLIES), RateLimit(MAX_PUBLISHED_ERRORS)
        self._suggestions = RateLimit(MAX_SUGGESTIONS)
        self._closing = False
        self._stop_listening = controls.on_change(self._changed)
        self._thread = threading.Thread(target=self._run, name="osc", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the thread and frees the port. Waits at most half a second for a running command."""
        self._stop_listening()
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(0.5)

    def send_state(self, text: str) -> None:
        """Sends the state to all subscribers. Like all ``send_`` methods it is thread-safe, never waits and never raises."""
        self._publish(self._subscribers(), "state", text)

    def send_message(self, text: str) -> None:
        """Sends a message to all subscribers and recent senders of commands."""
        self._publish(self._recipients.all(), "message", text)

    def send_error(self, code: str, message: str) -> None:
        """Sends an error to all subscribers and recent senders of commands: a code for programs, a line of text for people."""
        self._publish(self._recipients.all(), "error", code, message)

    def send_stats(self, stats: Mapping[str, float]) -> None:
        """Sends the statistics to all subscribers as name, value, name, value ...; drops them within ``stats_interval``."""
        now = time.monotonic()
        if now >= self._next_stats:
            self._next_stats = now + self._stats_interval
            self._publish(self._subscribers(), "stats", *(part for pair in stats.items() for part in pair))

    def _subscribers(self) -> list[Address]:
        return [target for target, _ in self._recipients.subscribers()]

    # Called on the server's thread.

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._socket, self._wake_sender, self._wake_receiver:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            while not self._closing:
                try:
                    selector.select(self._select_timeout())
                    self._receive()
                    for _ in range(min(len(self._backlog), 64)):  # limited, so that the kernel's buffer is emptied often
                        self._handle(*self._pop_backlog())
                    self._dispatch_scheduled()
                    if time.monotonic() >= self._next_update:
                        self._send_changes()
                except Exception as error:  # no packet may end the thread
                    self._log(f"{type(error).__name__}: {error}")

    def _select_timeout(self) -> float | None:
        """Seconds until the next scheduled work; None if there is none."""
        if self._backlog:
            return 0.0
        now = time.monotonic()
        update = max(0.0, self._next_update - now) if self._changes else None
        return min((wait for wait in (update, self._scheduled.seconds_to_next(now)) if wait is not None), default=None)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_receiver.recv(4096):
                pass
        for _ in range(1024):
            try:
                datagram, sender = self._socket.recvfrom(65535)
            except BlockingIOError:
                return
            except ConnectionError:  # Windows: nobody listens on the target of an earlier send
                continue
            except OSError as error:
                self._log(f"cannot receive: {error}")
                time.sleep(0.05)  # the network is down: avoid a busy loop
                return
            if not self._is_allowed(sender[0]):
                self._log(f"ignored a sender that is not allowed: {sender[0]}")
            elif sender[:2] != (self.host, self.port):  # a packet of our own
                self._add_to_backlog(datagram[: MAX_DATAGRAM + 1], sender)

    def _add_to_backlog(self, datagram: bytes, sender: Address) -> None:
        self._backlog.append((datagram, sender))
        self._backlog_bytes += len(datagram)
        while len(self._backlog) > MAX_BACKLOG or self._backlog_bytes > MAX_BACKLOG_BYTES:
            self._pop_backlog()
            self.dropped += 1

    def _pop_backlog(self) -> tuple[bytes, Address]:
        datagram, sender = self._backlog.popleft()
        self._backlog_bytes -= len(datagram)
        return datagram, sender

    def _handle(self, datagram: bytes, sender: Address) -> None:
        try:
            messages = messages_of(datagram)
        except ValueError as error:
            self._refuse(sender, "malformed", f"not an OSC packet: {error}")
            return
        clock, now = time.monotonic(), time.time()  # read once, so that messages of one packet keep their order
        for message in messages:
            if isinstance(message, Malformed):
                self._refuse(sender, "malformed", f"not an OSC message: {message.reason}")
            elif (ahead := message.due - now) <= 0:
                self._dispatch(message.address, message.values, sender)
            elif ahead > MAX_AHEAD:
                self._refuse(sender, "time", f"{shown(message.address)}: {ahead:.0f} s ahead, allowed up to {MAX_AHEAD:.0f} s")
            elif not self._scheduled.add(clock + ahead, (message, sender)):
                self._refuse(sender, "time", f"{shown(message.address)}: the maximum of {MAX_SCHEDULED} messages is scheduled")

    def _dispatch_scheduled(self) -> None:
        now = time.monotonic()
        while (due := self._scheduled.pop_due(now)) is not None:
            message, sender = due
            self._dispatch(message.address, message.values, sender)

    def _dispatch(self, address: str, values: list[Any], sender: Address) -> None:
        name = address.removeprefix(PREFIX)
        if address == name:  # for another program, or misspelt; the reply has the rate limit of the log
            text = f"{shown(address)} does not begin with {PREFIX}"
            if self._log(text):
                self._send_error_to(sender, "unknown", text)
        elif name in CONTROLS:
            self._control(name, values, sender)
        elif name in self._commands:
            self._command(name, values, sender)
        elif name in self._builtins:
            self._builtins[name](values, sender)
        elif name in self._queries:
            self._query(name, values, sender)
        elif name not in (*_OUTGOING, *_INITIAL_QUERIES) and self._suggestions.acquire():
            close = nearest(name, [*CONTROLS, *self._commands, *self._builtins, *self._queries])
            self._refuse(sender, "unknown", f"unknown address {shown(address)}, nearest is {PREFIX}{close}")

    def _control(self, name: str, values: list[Any], sender: Address) -> None:
        if not values:
            self._send_changes()  # the sender receives earlier changes first
            self._reply(sender, name, self._controls.get(name))
        elif len(values) > 1:
            self._refuse(sender, "value", f"{name}: found {len(values)} values, allowed one: {CONTROLS[name].allowed}")
        elif not _is_float32_of(values[0], self._controls.get(name)):
            try:
                self._controls.set(name, values[0], source=sender)
            except ControlError as error:
                self._refuse(sender, "value", str(error))

    def _command(self, name: str, values: list[Any], sender: Address) -> None:
        command, signature = self._commands[name]
        values = [] if values == [None] else values
        if signature is not None and not _accepts(signature, values):
            if len(values) != 1 or not isinstance(values[0], (bool, int, float)) or not _accepts(signature, []):
                allowed = ", ".join(signature.parameters) or "none"
                self._refuse(sender, "arguments", f"{name}: found {shown(values)}, allowed: {allowed}")
                return
            if not values[0]:
                return
            values = []
        self._recipients.add_sender(self._reply_address(sender))
        try:
            command(*values)
        except Exception as error:  # any exception of a command is reported to the sender
            self._refuse(sender, "command", f"{name}: {in_words(error)}")

    def _query(self, name: str, values: list[Any], sender: Address) -> None:
        if values:  # a reply of another daemon: two daemons would answer each other for ever
            return
        try:
            self._reply(sender, name, *self._queries[name]())
        except Exception as error:
            self._refuse(sender, "command", f"{name}: {in_words(error)}")

    def _subscribe(self, values: list[Any], sender: Address) -> None:
        target = self._target(values, sender)
        if target is not None:
            self._send_changes()  # to earlier subscribers; the new one receives the current values
            self._recipients.subscribe(target, sender)
            self._send_current_values(target)

    def _send_current_values(self, target: Address) -> None:
        """Sends all controls, state and stats to a new subscriber."""
        queries = {name: self._queries[name] for name in _INITIAL_QUERIES if name in self._queries}
        messages = [(name, [value]) for name, value in self._controls.snapshot().items()]
        for name, values in [*messages, *((name, list(query())) for name, query in queries.items())]:
            if self._replies.acquire():
                self._send_to(target, name, *values)

    def _unsubscribe(self, values: list[Any], sender: Address) -> None:
        target = self._target(values, sender)
        if target is not None:
            self._recipients.unsubscribe(target)
            if not values:
                self._recipients.unsubscribe_all(sender)

    def _target(self, values: list[Any], sender: Address) -> Address | None:
        """The address to subscribe: a port on the sender's own host. If the port is invalid, sends an error and returns None."""
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
        if values:  # a reply of another daemon: two daemons would answer each other for ever
            return
        for name, value in self._controls.snapshot().items():
            control = CONTROLS[name]
            details = (control.unit, control.help, control.kind, control.default, ",".join(control.choices))
            self._reply(sender, "list", name, value, control.low, control.high, *details)

    # Sending.

    def _changed(self, name: str, value: Value, source: object) -> None:
        with self._lock:
            self._changes[name] = (value, source)
        if threading.current_thread() is not self._thread:
            self._wake()

    def _send_changes(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, {}
        subscribers = self._recipients.subscribers() if changes else []
        if changes:
            self._next_update = time.monotonic() + _UPDATE_INTERVAL
        for name, (value, source) in changes.items():
            for target, owner in subscribers:
                if source not in (target, owner):
                    self._send_to(target, name, value)

    def _publish(self, targets: Iterable[Address], name: str, *values: Value) -> None:
        for target in targets:
            self._send_to(target, name, *values)

    def _refuse(self, sender: Address, code: str, message: str) -> None:
        self._log(message)
        self._send_error_to(sender, code, message)

    def _send_error_to(self, sender: Address, code: str, message: str) -> None:
        """Sends an error to the sender and, up to ``MAX_PUBLISHED_ERRORS`` per second, to the other subscribers."""
        self._reply(sender, "error", code, message)
        if self._published_errors.acquire():
            others = (target for target in self._subscribers() if target != self._reply_address(sender))
            self._publish(others, "error", code, message)

    def _reply(self, sender: Address, name: str, *values: Value) -> None:
        if self._replies.acquire():
            self._send_to(self._reply_address(sender), name, *values)

    def _reply_address(self, sender: Address) -> Address:
        return (sender[0], self._reply_port or sender[1], *sender[2:])

    def _send_to(self, target: Address, name: str, *values: Value) -> None:
        try:
            self._socket.sendto(packet_of(PREFIX + name, values), target)
        except (OSError, BuildError, ValueError, ArithmeticError) as error:  # a full buffer, no route, no OSC value
            if not self._closing:
                self._log(f"cannot send to {target[0]}:{target[1]}: {error}")

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: the thread wakes anyway; closed: it has ended
            self._wake_sender.send(b"\0")

    def _log(self, text: str) -> bool:
        """Logs one line, at most one per ``_LOG_INTERVAL``; returns whether it was logged."""
        now = time.monotonic()
        if now < self._next_log:
            self._suppressed += 1
            return False
        log.warning("OSC: %s%s", printable(text), f" ({self._suppressed} more suppressed)" if self._suppressed else "")
        self._next_log, self._suppressed = now + _LOG_INTERVAL, 0
        return True


def _is_float32_of(value: object, current: Value) -> bool:
    """Whether a received value is the current value rounded to OSC's 32 bits. Setting it would change our 64-bit value."""
    return isinstance(value, float) and isinstance(current, float) and (value,) == struct.unpack("f", struct.pack("f", current))


def _signature(command: Callable[..., object]) -> inspect.Signature | None:
    """The signature of a command; None if it has none that can be inspected."""
    try:
        return inspect.signature(command)
    except (TypeError, ValueError):
        return None


def _accepts(signature: inspect.Signature, values: list[Any]) -> bool:
    try:
        signature.bind(*values)
    except TypeError:
        return False
    return True
