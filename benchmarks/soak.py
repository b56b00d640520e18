"""Hours on stage: python -m benchmarks.soak [--minutes 60] [--performances FOLDER] [--seed 0] [--json FILE]

A real daemon on a JACK server of its own. Performances (MIDI files, or else the bundled call) are played at it in real time while
it changes its mode and whether it passes them on, and every half a minute something goes wrong: cables are pulled, connections
are cut in a patchbay, a layered keyboard plays with a pedal that trembles, the model's process is killed or hangs, the machine
sleeps or is overloaded, the JACK server is killed, floods of MIDI and OSC come in; when the time is over the daemon is killed,
and told to stop in every way there is. Straight after that the human plays eight notes that the daemon has to pass on, and has
the machine take over. Then all are silent: what still sounds hangs.

A JACK server under load skips clients in a period, and what they had to receive in it is lost. So the daemon logs each message
that the driver delivers or accepts (`soak_daemon.py`). A message that the keyboard has sent and the driver has not delivered, or
that the driver has accepted and the synthesizer has not received, is counted as dropped by JACK, and not as lost or hung.

Printed at the end: for each disturbance the notes that hung, the human's that were not passed on, those dropped by JACK, and the
time until the machine was heard again; and by quarter of the time the latency from `/perceivers/takeover` to the first note
(undisturbed), resident memory, threads and open files of the daemon and its model: all of one daemon. Fails if a note hung or was
lost, the machine did not come back, or, from ten minutes on, memory, threads or files have grown.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import click

from benchmarks.soak_log import Missing, PortLog, hanging, missing_strikes
from benchmarks.soak_report import Outcome, Sample, report
from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import message_of
from engine.midi_file import read_file
from perceivers_live.commands.demo import bundled_call
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.recording import Message
from tests.live.remote import Remote, free_port
from tests.live.waiting import TIMEOUT

GROWTH_AFTER = 10.0  # minutes; a shorter run sees mostly how the daemon fills its buffers
ASKED = 20  # times, a second each
ASKING = 0.25  # seconds until the ports are looked for again
CALM = 10.0  # seconds of playing before a disturbance, and half as many after it
OVERLOAD = """
import time
end = time.monotonic() + 5
while time.monotonic() < end:
    pass
"""
CHECKED = tuple(range(24, 32))  # keys below what the machine plays
QUIET = 1.0  # seconds of silence after which what sounds hangs,
PATIENT = 5.0  # and at most so many for what is under way, on a machine under load
MARK = 119  # a controller that nothing else here uses
ROOT = Path(__file__).parents[1]
MODES = ("respond", "duet", "solo", "listen")
SETTINGS = "[page]\nport = 0\n[recording]\nrecord = true\n"


class Gig:
    """The stage, and everything that can go wrong on it."""

    def __init__(self, jack: JackServer, folder: Path, performances: list[Path], seed: int) -> None:
        self.jack, self.home, self.rng = jack, Home(folder), random.Random(seed)
        self.home.configure(SETTINGS)
        self.performances = performances
        self.port, self.logs = free_port(), count(1)
        self.peer = Peer(jack)
        self.daemon = self._begin()
        self.remote = Remote(self.port)
        self.remote.send("register_low", CHECKED[-1] + 1)
        self.outcomes: dict[str, Outcome] = defaultdict(Outcome)
        self.hung = self.lost = self.dropped = 0  # that were seen to be, under the present disturbance
        self.busy: list[subprocess.Popen[bytes]] = []

    def _begin(self) -> Daemon:
        ports = ("--in", "stage-keys", "--out", "stage-synth", "--osc-port", str(self.port))
        path = self.home.data / f"ports-{next(self.logs)}.log"
        program = (sys.executable, "-m", "benchmarks.soak_daemon", str(path))
        daemon = Daemon(ports, {**self.jack.env, "PYTHONPATH": str(ROOT)}, self.home, program)
        self.log = PortLog(path)
        daemon.wait_for_line("listening;", TIMEOUT)
        return daemon

    # Playing.

    def play(self, seconds: float) -> None:
        """A stretch of a performance, in real time; every key is released at its end."""
        actions = self._stretch(seconds)
        began, held, pedal = time.perf_counter(), set(), False
        for one in actions:
            time.sleep(max(0.0, began + one.time - time.perf_counter()))
            self.peer.send(*message_of(one.action, one.velocity))
            if one.action < NOTE_OFF:
                held.add(one.action - NOTE_ON)
            elif one.action < SUSTAIN_DOWN:
                held.discard(one.action - NOTE_OFF)
            else:
                pedal = one.action == SUSTAIN_DOWN
        for pitch in held:
            self.peer.send(*message_of(NOTE_OFF + pitch, 0))
        if pedal:
            self.peer.send(*message_of(SUSTAIN_UP, 0))

    def _stretch(self, seconds: float) -> list[Timed]:
        actions = read_file(self.rng.choice(self.performances))
        begin = self.rng.uniform(0, max(0.0, actions[-1].time - seconds))
        return [one._replace(time=one.time - begin) for one in actions if begin <= one.time < begin + seconds]

    # What goes wrong.

    def disturbances(self) -> dict[str, Callable[[], None]]:
        return {
            "keyboard and synthesizer unplugged": self.unplug,
            "keyboard disconnected, keys held": self.disconnect,
            "layers and pedal noise, thru": self.tremble,
            "model's process killed": lambda: self._signal_model(signal.SIGKILL),
            "model's process stopped": lambda: self._signal_model(signal.SIGSTOP),
            "JACK server killed": self.kill_server,
            "machine asleep for 3 s": self.sleep,
            "machine overloaded": self.overload,
            "MIDI flood": self.flood_midi,
            "OSC flood": self.flood_osc,
            "panic, yield, forget, modes": self.storm,
        }

    def last_disturbances(self) -> dict[str, Callable[[], None]]:
        """Those that a daemon does not survive."""
        return {
            "daemon killed": lambda: self.end_daemon(signal.SIGKILL),
            "daemon told to stop, SIGTERM": lambda: self.end_daemon(signal.SIGTERM),
            "daemon told to stop, SIGINT": lambda: self.end_daemon(signal.SIGINT),
            "daemon told to stop, SIGHUP": lambda: self.end_daemon(signal.SIGHUP),
        }

    def unplug(self) -> None:
        self.peer.close()
        time.sleep(1.5)
        self.peer = Peer(self.jack)

    def disconnect(self) -> None:
        """Another program cuts the keyboard's connection under held keys that are passed on, and makes it again."""
        self.turn("thru", 1)
        for message in ((0x90, CHECKED[0], 64), (0x90, 60, 64), (0xB0, 64, 127), (0xB1, 66, 127)):
            self.peer.send(*message)
        time.sleep(0.1)
        ours = self.jack.wait_for_port("perceivers-live-in")
        self.jack.disconnect(self.peer.keys, ours)
        waited(lambda: CHECKED[0] not in self.peer.sounding)
        self._count_hanging(self.peer.sounding & {CHECKED[0]}, excused=False)
        self.jack.connect(self.peer.keys, ours)
        for message in ((0x80, CHECKED[0], 64), (0x80, 60, 64), (0xB0, 64, 0), (0xB1, 66, 0)):
            self.peer.send(*message)

    def tremble(self) -> None:
        """Every key on two channels, a pedal between up and down, channel mode messages after the keys; the machine plays too."""
        self.turn("thru", 1)
        self.remote.send("mode", "duet")
        with self._passing_on() as strikes:
            for round_ in range(40):
                pitch = CHECKED[round_ % len(CHECKED)]
                strikes += [(0x90, pitch), (0x91, pitch)]
                for message in ((0x90, pitch, 64), (0x91, pitch, 64), (0xB0, 64, 61 + round_ % 6), (0xD0, round_)):
                    self.peer.send(*message)
                time.sleep(0.03)
                for message in ((0x80, pitch, 0), (0x81, pitch, 0), (0xB0, 123, 0), (0xB0, 64, 62 + round_ % 4)):
                    self.peer.send(*message)
                time.sleep(0.02)
            self.peer.send(0xB0, 64, 0)

    def _signal_model(self, number: signal.Signals) -> None:
        for pid in self.processes()[1:]:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"engine.remote.serve" in command:
                os.kill(pid, number)

    def kill_server(self) -> None:
        self.peer.close()
        self.jack.restart()
        self.peer = Peer(self.jack)

    def sleep(self) -> None:
        """Everything but the clock stands still; nobody plays meanwhile."""
        assert self.jack.process is not None
        everything = [*self.processes(), self.jack.process.pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in everything:
                os.kill(pid, number)
            time.sleep(3.0 if number == signal.SIGSTOP else 0.0)

    def overload(self) -> None:
        """Twice as many busy processes as cores, for five seconds; the machine is asked to play after the first of them."""
        for _ in range(2 * (os.cpu_count() or 1)):
            self.busy.append(subprocess.Popen([sys.executable, "-c", OVERLOAD]))
        time.sleep(1.0)

    def end_daemon(self, number: signal.Signals) -> None:
        self.daemon.signal(number)
        self.daemon.wait()
        waited(lambda: not self.peer.sounding)
        self.hung += len(self.peer.sounding)  # nothing else is there that could end them
        self.daemon = self._begin()
        self.remote.close()
        self.remote = Remote(self.port)
        self.remote.send("register_low", CHECKED[-1] + 1)

    def flood_midi(self) -> None:
        """Ten thousand messages a second; RtMidi's own buffer on JACK loses some of what comes faster."""
        self.turn("thru", 0)
        began = time.perf_counter()
        for number in range(3000):
            time.sleep(max(0.0, began + number * 3 / 10_000 - time.perf_counter()))
            pitch = self.rng.randint(0, 127)
            self.peer.send(0x90, pitch, 64)
            self.peer.send(0x80, pitch, 0)
            self.peer.send(0xB0, self.rng.randint(1, 60), self.rng.randint(0, 127))
        self.catch_up(lambda: self.log.delivered)

    def flood_osc(self) -> None:
        for _ in range(5000):
            self.remote.send(self.rng.choice(("temperature", "density", "nonsense", "pace")), self.rng.uniform(-3, 3))
        for name, value in (("temperature", 1.0), ("density", 0.0), ("pace", 0.5)):
            self.remote.send(name, value)

    def storm(self) -> None:
        for _ in range(20):
            command = self.rng.choice(("panic", "yield", "takeover", "forget", "mode"))
            self.remote.send(command, *((self.rng.choice(MODES),) if command == "mode" else ()))
            self.peer.send(0x90, 60, 80)
            time.sleep(self.rng.uniform(0, 0.1))
            self.peer.send(0x80, 60, 0)

    # Watching.

    def disturb(self) -> None:
        """By one of those that have come least often."""
        choice = self.disturbances()
        least = min(self.outcomes[one].times for one in choice)
        name = self.rng.choice([one for one in choice if self.outcomes[one].times == least])
        self.suffer(name, choice[name])

    def suffer(self, name: str, disturb: Callable[[], None]) -> None:
        outcome, self.hung, self.lost, self.dropped = self.outcomes[name], 0, 0, 0
        outcome.times += 1
        self.remote.send("takeover")
        time.sleep(0.5)  # something sounds
        disturb()
        began = time.perf_counter()
        self.turn("mode", "listen")
        self.pass_on()
        self.turn("mode", "respond")
        outcome.recovery.append(time.perf_counter() - began if self.heard(timeout=15.0, again=0.25) is not None else math.inf)
        self.listen_for_hanging()
        outcome.hung, outcome.lost = outcome.hung + self.hung, outcome.lost + self.lost
        outcome.dropped += self.dropped
        while self.busy:
            self.busy.pop().wait()

    def pass_on(self) -> None:
        """Plays what the daemon has to pass on, once both of its ports are open."""
        self.turn("thru", 1)
        self.catch_up(lambda: self.peer.received)
        with self._passing_on() as strikes:
            for pitch in CHECKED:
                strikes.append((0x90, pitch))
                self.peer.send(0x90, pitch, 64)
                time.sleep(0.01)
                self.peer.send(0x80, pitch, 0)
                time.sleep(0.01)
        self.turn("thru", 0)

    @contextmanager
    def _passing_on(self) -> Iterator[list[tuple[int, int]]]:
        """Counts the strikes (status, pitch) that are put into the list meanwhile and do not arrive."""
        strikes: list[tuple[int, int]] = []
        begins = [len(station) for station in (self.log.delivered, self.log.accepted, self.peer.received)]
        yield strikes
        sent = [Message(0.0, status, pitch, 64) for status, pitch in strikes]

        def missing() -> Missing:
            stations = (self.log.delivered, self.log.accepted, self.peer.received)
            return missing_strikes(sent, *(station[begin:] for station, begin in zip(stations, begins, strict=True)))

        waited(lambda: not any(missing()))
        found = missing()
        self.lost += found.daemon
        self._count_dropped(found)

    def catch_up(self, station: Callable[[], list[Message]]) -> None:
        """Waits until everything that was sent has arrived at a station (all messages there so far)."""
        begin = len(station())
        for number in range(round(ASKED / ASKING)):
            self.peer.send(0xB0, MARK, number)
            if waited(lambda: any(one[1:3] == (0xB0, MARK) for one in station()[begin:]), ASKING):
                return
        raise RuntimeError("what is played does not arrive")

    def turn(self, name: str, value: float | str) -> None:
        """Sets a control and sees that it has arrived: OSC and MIDI are not in order, and after a flood datagrams are lost, and
        replies are fewer than questions.
        """
        for _ in range(ASKED):
            known = len(self.remote.received(name))
            self.remote.send(name, value)
            self.remote.send(name)
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                if any(one.values[0] == value for one in self.remote.received(name)[known:]):
                    return
                time.sleep(0.01)
        raise RuntimeError(f"the daemon does not answer when it is asked for {name}")

    def heard(self, timeout: float, again: float) -> float | None:
        """Seconds from asking the machine to take over (``again`` and again) to its first note."""
        before, began = self.peer.struck, time.perf_counter()
        while time.perf_counter() - began < timeout:
            self.remote.send("takeover")
            deadline = time.perf_counter() + again
            while time.perf_counter() < deadline:
                if self.peer.struck > before:
                    return time.perf_counter() - began
                time.sleep(0.0005)
        return None

    def listen_for_hanging(self) -> None:
        """Counts what sounds although everyone is silent."""
        self.turn("mode", "listen")
        time.sleep(QUIET)
        waited(lambda: not self.peer.sounding)
        self._count_hanging(self.peer.sounding)
        self.remote.send("panic")
        self.turn("mode", "respond")

    def _count_hanging(self, sounding: set[int], *, excused: bool = True) -> None:
        found = hanging(sounding, self.log, excused=excused)
        self.hung += found.daemon
        self._count_dropped(found)

    def _count_dropped(self, found: Missing) -> None:
        self.dropped += found.undelivered + found.unheard
        if any(found):
            click.echo(f"{found}; JACK has logged {self.jack.log().count('XRun')} xruns", err=True)

    def processes(self) -> list[int]:
        """The daemon and what it has begun."""
        found = [self.daemon.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        return found

    def resources(self) -> tuple[float, int, int]:
        """Resident memory in MB, threads, open files, of them all."""
        memory, threads, files = 0.0, 0, 0
        for pid in self.processes():
            status = Path(f"/proc/{pid}/status").read_text().split("\n")
            memory += sum(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
            threads += sum(int(line.split()[1]) for line in status if line.startswith("Threads"))
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return memory, threads, files

    def close(self) -> None:
        for process in self.busy:
            process.kill()
        self.remote.close()
        self.daemon.end()
        self.peer.close()


def waited(condition: Callable[[], object], patience: float = PATIENT) -> bool:
    """Waits for a condition; False after ``patience`` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@click.command()
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--performances", type=click.Path(path_type=Path, exists=True), help="Folder of MIDI files to play.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(minutes: float, performances: Path | None, seed: int, json_file: Path | None) -> None:
    files = sorted([*performances.rglob("*.mid"), *performances.rglob("*.midi")]) if performances else [bundled_call()]
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, JackServer() as jack:
        gig, failed = Gig(jack, Path(folder), files, seed), None
        try:
            began = time.monotonic()
            while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
                gig.remote.send("mode", gig.rng.choice(MODES[:3]))
                gig.turn("thru", gig.rng.randint(0, 1))
                gig.play(CALM)
                gig.remote.send("mode", "respond")
                gig.remote.send("yield")
                for _ in range(5):
                    time.sleep(0.3)
                    latency = gig.heard(timeout=2.0, again=2.0)
                    gig.remote.send("yield")
                    samples.append(Sample(share, latency, *gig.resources()))
                gig.disturb()
                gig.play(CALM / 2)
            for _ in range(max(1, round(minutes / 15))):
                for name, disturb in gig.last_disturbances().items():
                    gig.suffer(name, disturb)
                    gig.play(CALM / 2)
        except Exception as error:  # the rest is worth knowing all the same
            failed = error
        finally:
            gig.close()
    growing = report(gig.outcomes, samples, minutes, json_file)
    if failed is not None:
        raise failed
    if any(one.hung or one.lost or math.inf in one.recovery for one in gig.outcomes.values()):
        raise click.ClickException("a note hung or was lost, or the machine did not come back")
    if growing and minutes >= GROWTH_AFTER:
        raise click.ClickException(f"from the first quarter to the last there are more: {', '.join(growing)}")


if __name__ == "__main__":
    main()
