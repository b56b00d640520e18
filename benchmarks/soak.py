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
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.soak_report import Sample, report
from benchmarks.soak_stage import CHECKED, SoakStage, waited
from perceivers_live.commands.demo import bundled_call
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.remote import Remote

GROWTH_AFTER = 10.0  # minutes; a shorter run sees mostly how the daemon fills its buffers
CALM = 10.0  # seconds of playing before a disturbance, and half as many after it
OVERLOAD = """
import time
end = time.monotonic() + 5
while time.monotonic() < end:
    pass
"""
MODES = ("respond", "duet", "solo", "listen")


class Soak(SoakStage):
    """The disturbances."""

    def disturbances(self) -> dict[str, Callable[[], None]]:
        return {
            "keyboard and synthesizer unplugged": self.unplug,
            "keyboard disconnected, keys held": self.disconnect,
            "layers and pedal noise, thru": self.play_layered,
            "model's process killed": lambda: self._signal_model(signal.SIGKILL),
            "model's process stopped": lambda: self._signal_model(signal.SIGSTOP),
            "JACK server killed": self.kill_server,
            "machine asleep for 3 s": self.sleep,
            "machine overloaded": self.overload,
            "MIDI flood": self.flood_midi,
            "OSC flood": self.flood_osc,
            "panic, yield, forget, modes": self.send_commands,
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
        self.count_hanging(self.peer.sounding & {CHECKED[0]}, excused=False)
        self.jack.connect(self.peer.keys, ours)
        for message in ((0x80, CHECKED[0], 64), (0x80, 60, 64), (0xB0, 64, 0), (0xB1, 66, 0)):
            self.peer.send(*message)

    def play_layered(self) -> None:
        """Every key on two channels, a pedal between up and down, channel mode messages after the keys; the machine plays too."""
        self.turn("thru", 1)
        self.remote.send("mode", "duet")
        with self.passing_on() as strikes:
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
        self.daemon = self.start_daemon()
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

    def send_commands(self) -> None:
        """Commands and modes in quick succession, with key presses between them."""
        for _ in range(20):
            command = self.rng.choice(("panic", "yield", "takeover", "forget", "mode"))
            self.remote.send(command, *((self.rng.choice(MODES),) if command == "mode" else ()))
            self.peer.send(0x90, 60, 80)
            time.sleep(self.rng.uniform(0, 0.1))
            self.peer.send(0x80, 60, 0)

    def disturb(self) -> None:
        """Runs one of the disturbances that have been run least often."""
        choice = self.disturbances()
        least = min(self.outcomes[one].times for one in choice)
        name = self.rng.choice([one for one in choice if self.outcomes[one].times == least])
        self.run(name, choice[name])

    def run(self, name: str, disturb: Callable[[], None]) -> None:
        """Disturbs the machine while it plays; then measures when it plays again, what it passes on and what hangs."""
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


@click.command()
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--performances", type=click.Path(path_type=Path, exists=True), help="Folder of MIDI files to play.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(minutes: float, performances: Path | None, seed: int, json_file: Path | None) -> None:
    files = sorted([*performances.rglob("*.mid"), *performances.rglob("*.midi")]) if performances else [bundled_call()]
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, JackServer() as jack:
        soak, failed = Soak(jack, Path(folder), files, seed), None
        try:
            began = time.monotonic()
            while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
                soak.remote.send("mode", soak.rng.choice(MODES[:3]))
                soak.turn("thru", soak.rng.randint(0, 1))
                soak.play(CALM)
                soak.remote.send("mode", "respond")
                soak.remote.send("yield")
                for _ in range(5):
                    time.sleep(0.3)
                    latency = soak.heard(timeout=2.0, again=2.0)
                    soak.remote.send("yield")
                    samples.append(Sample(share, latency, *soak.resources()))
                soak.disturb()
                soak.play(CALM / 2)
            for _ in range(max(1, round(minutes / 15))):
                for name, disturb in soak.last_disturbances().items():
                    soak.run(name, disturb)
                    soak.play(CALM / 2)
        except Exception as error:  # the rest is worth knowing all the same
            failed = error
        finally:
            soak.close()
    growing = report(soak.outcomes, samples, minutes, json_file)
    if failed is not None:
        raise failed
    if any(one.hung or one.lost or math.inf in one.recovery for one in soak.outcomes.values()):
        raise click.ClickException("a note hung or was lost, or the machine did not come back")
    if growing and minutes >= GROWTH_AFTER:
        raise click.ClickException(f"from the first quarter to the last there are more: {', '.join(growing)}")


if __name__ == "__main__":
    main()
