"""Hours on stage: python benchmarks/soak.py [--minutes 60] [--performances FOLDER] [--seed 0] [--json FILE]

A real daemon on a JACK server of its own. Performances (MIDI files, or else notes made up here) are played at it in real time
while it changes its mode, and about every twenty seconds something goes wrong: cables are pulled, the model's process is killed
or stopped, the JACK server or the daemon itself is killed, floods of MIDI and OSC come in. After each, the human is silent: what
then still sounds hangs. Recovery is the time until the machine can be heard again when asked to take over.

Printed at the end: the disturbances, and by quarter of the time the latency from `/perceivers/takeover` to the first note
(undisturbed), resident memory, threads and open files of the daemon and its model.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "live"))
from daemon import Daemon, Home
from jack_server import JackServer
from patience import PATIENCE
from peer import Peer
from remote import Remote, free_port

from engine.events import NOTE_OFF, NOTE_ON, SUSTAIN_DOWN, SUSTAIN_UP, Timed
from engine.midi import message_of, read_file
from perceivers_live.bench import machine

CALM = 20.0  # seconds of playing between two disturbances
QUIET = 1.0  # seconds of silence after which what sounds hangs
MODES = ("respond", "duet", "solo", "listen")
SETTINGS = "[osc]\nquery_port = 0\n[recording]\nrecord = true\n"


@dataclasses.dataclass
class Outcome:
    """Of one kind of disturbance."""

    times: int = 0
    hung: int = 0
    unrecovered: int = 0
    recovery: list[float] = dataclasses.field(default_factory=list)  # seconds


class Gig:
    """The stage, and everything that can go wrong on it."""

    def __init__(self, jack: JackServer, folder: Path, performances: list[Path], seed: int) -> None:
        self.jack, self.home, self.rng = jack, Home(folder), random.Random(seed)
        self.home.configure(SETTINGS)
        self.performances = performances
        self.port = free_port()
        self.peer = Peer(jack)
        self.daemon = self._begin()
        self.remote = Remote(self.port)
        self.outcomes: dict[str, Outcome] = defaultdict(Outcome)

    def _begin(self) -> Daemon:
        ports = ("--in", "stage-keys", "--out", "stage-synth", "--osc-port", str(self.port))
        daemon = Daemon(ports, self.jack.env, self.home)
        daemon.wait_for_line("listening;", PATIENCE)
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
        if not self.performances:
            pitches = [self.rng.randint(36, 96) for _ in range(int(seconds * 4))]
            notes = [(i * 0.25, pitch) for i, pitch in enumerate(pitches)]
            ons = [Timed(at, NOTE_ON + pitch, self.rng.randint(30, 110)) for at, pitch in notes]
            return sorted([*ons, *(Timed(at + 0.2, NOTE_OFF + pitch) for at, pitch in notes)], key=lambda one: one.time)
        actions = read_file(self.rng.choice(self.performances))
        begin = self.rng.uniform(0, max(0.0, actions[-1].time - seconds))
        return [one._replace(time=one.time - begin) for one in actions if begin <= one.time < begin + seconds]

    # What goes wrong.

    def disturbances(self) -> dict[str, Callable[[], None]]:
        return {
            "keyboard and synthesizer unplugged": self.unplug,
            "model's process killed": lambda: self._signal_model(signal.SIGKILL),
            "model's process stopped": lambda: self._signal_model(signal.SIGSTOP),
            "JACK server killed": self.kill_server,
            "daemon killed": self.kill_daemon,
            "MIDI flood": self.flood_midi,
            "OSC flood": self.flood_osc,
            "panic, yield, forget, modes": self.storm,
        }

    def unplug(self) -> None:
        self.peer.close()
        time.sleep(1.5)
        self.peer = Peer(self.jack)

    def _signal_model(self, number: signal.Signals) -> None:
        for pid in self.processes()[1:]:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"multiprocessing" in command and b"spawn_main" in command:
                os.kill(pid, number)

    def kill_server(self) -> None:
        self.peer.close()
        self.jack.restart()
        self.peer = Peer(self.jack)

    def kill_daemon(self) -> None:
        self.daemon.signal(signal.SIGKILL)
        self.daemon.wait()
        time.sleep(QUIET)
        if self.peer.sounding:
            self.outcomes["daemon killed"].hung += len(self.peer.sounding)
        self.daemon = self._begin()
        self.remote.close()
        self.remote = Remote(self.port)

    def flood_midi(self) -> None:
        for _ in range(3000):
            pitch = self.rng.randint(0, 127)
            self.peer.send(0x90, pitch, 64)
            self.peer.send(0x80, pitch, 0)
            self.peer.send(0xB0, self.rng.randint(1, 60), self.rng.randint(0, 127))

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
        name = self.rng.choice(list(self.disturbances()))
        outcome = self.outcomes[name]
        outcome.times += 1
        self.remote.send("takeover")
        time.sleep(0.5)  # something sounds
        self.disturbances()[name]()
        self.remote.send("mode", "respond")
        recovery = self.heard(timeout=15.0, again=0.25)
        if recovery is None:
            outcome.unrecovered += 1
        else:
            outcome.recovery.append(recovery)
        outcome.hung += self.hanging()

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

    def hanging(self) -> int:
        """What sounds although everyone is silent."""
        self.remote.send("mode", "listen")
        time.sleep(QUIET)
        hanging = len(self.peer.sounding)
        self.remote.send("panic")
        self.remote.send("mode", "respond")
        return hanging

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
        self.remote.close()
        self.daemon.end()
        self.peer.close()


@click.command()
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--performances", type=click.Path(path_type=Path, exists=True), help="Folder of MIDI files to play.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(minutes: float, performances: Path | None, seed: int, json_file: Path | None) -> None:
    files = sorted([*performances.rglob("*.mid"), *performances.rglob("*.midi")]) if performances else []
    samples: list[tuple[float, float | None, float, int, int]] = []  # share of the time, latency, resources
    with tempfile.TemporaryDirectory() as folder, JackServer() as jack:
        gig = Gig(jack, Path(folder), files, seed)
        try:
            began = time.monotonic()
            while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
                gig.remote.send("mode", gig.rng.choice(MODES[:3]))
                gig.play(CALM / 2)
                gig.remote.send("mode", "respond")
                gig.remote.send("yield")
                for _ in range(5):
                    latency = gig.heard(timeout=2.0, again=2.0)
                    gig.remote.send("yield")
                    time.sleep(0.3)
                    samples.append((share, latency, *gig.resources()))
                gig.disturb()
                gig.play(CALM / 4)
        finally:
            gig.close()
    report(gig, samples, minutes, json_file)


def report(gig: Gig, samples: list[tuple[float, float | None, float, int, int]], minutes: float, json_file: Path | None) -> None:
    print(f"{machine()}; {minutes:g} minutes")
    print(f"{'disturbance':40}{'times':>6}{'hung notes':>12}{'no recovery':>12}{'seconds to recovery: p50':>26}{'max':>7}")
    for name, one in sorted(gig.outcomes.items()):
        p50, most = (np.median(one.recovery), max(one.recovery)) if one.recovery else (float("nan"), float("nan"))
        print(f"{name:40}{one.times:6}{one.hung:12}{one.unrecovered:12}{p50:26.2f}{most:7.2f}")
    print(f"\n{'quarter':8}{'takeover to note, ms: p50':>27}{'p99':>8}{'missed':>8}{'memory MB':>11}{'threads':>9}{'files':>7}")
    for quarter in range(4):
        mine = [one for one in samples if quarter / 4 <= one[0] < (quarter + 1) / 4]
        latencies = [1000 * one[1] for one in mine if one[1] is not None]
        if latencies:
            p50, p99 = np.percentile(latencies, [50, 99])
            memory, threads, files = (float(np.median([one[i] for one in mine])) for i in (2, 3, 4))
            missed = len(mine) - len(latencies)
            print(f"{quarter + 1:<8}{p50:27.1f}{p99:8.1f}{missed:8}{memory:11.1f}{threads:9.0f}{files:7.0f}")
    if json_file is not None:
        outcomes = {name: dataclasses.asdict(one) for name, one in gig.outcomes.items()}
        json_file.write_text(json.dumps({"machine": machine(), "minutes": minutes, "disturbances": outcomes, "samples": samples}))


if __name__ == "__main__":
    main()
