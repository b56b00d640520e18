"""Endurance test with injected faults: python -m benchmarks.soak [--minutes 60] [--performances FOLDER] [--seed 0] [--json FILE]

Runs a real daemon on a JACK server of its own, and plays performances to it in real time (MIDI files, or the bundled call). Modes
and MIDI thru change at random. About every half minute the test injects a fault: keyboard and synthesizer are unplugged,
connections are cut by another program, a layered keyboard plays with a noisy pedal, the model's process is killed or stopped, all
processes are suspended, the CPU is overloaded, the JACK server is killed, floods of MIDI or OSC messages arrive. At the end the
daemon itself is killed, and stopped by SIGTERM, SIGINT and SIGHUP.

After each fault the test plays eight notes that the daemon has to pass through, sends a takeover, and waits for the machine's
first note. Then it sets the mode to `listen` and sends nothing: notes that still sound after a while are hung.

A JACK server under load can skip a client in a period, and drops the messages for that client. So the daemon logs each message
that the driver delivers or accepts (`soak_daemon.py`). If the driver did not deliver a message of the keyboard, or accepted a
message that the synthesizer did not receive, the note counts as dropped by JACK, not as lost or hung.

Prints for each fault the hung notes, the human's notes that were not passed through (`lost`), those dropped by JACK, and the time
until the machine's next note. Prints for each quarter of the test, measured before each fault: the latency from
`/perceivers/takeover` to the first note; and resident memory, threads and open files of the daemon and its child processes. Fails
if a note hung or was lost, if the machine did not play again, or if memory, threads or files have grown in a test of at least ten
minutes.
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
from benchmarks.soak_session import THRU_KEYS, SoakSession, wait_for
from perceivers_live.commands.demo import bundled_call
from tests.live.jack_server import JackServer
from tests.live.peer import Peer
from tests.live.remote import Remote

GROWTH_AFTER = 10.0  # minutes; in a shorter test, memory grows mostly because buffers fill
PLAY_SECONDS = 10.0  # before a fault; half as many after it
BUSY_PROCESS = """
import time
end = time.monotonic() + 5
while time.monotonic() < end:
    pass
"""
MODES = ("respond", "duet", "solo", "listen")


class Soak(SoakSession):
    """Injects the faults."""

    def faults(self) -> dict[str, Callable[[], None]]:
        """Functions that inject a fault and return when it is over, by name."""
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

    def final_faults(self) -> dict[str, Callable[[], None]]:
        """Faults that end the daemon. They start a new one."""
        return {
            "daemon killed": lambda: self.end_daemon(signal.SIGKILL),
            "daemon told to stop, SIGTERM": lambda: self.end_daemon(signal.SIGTERM),
            "daemon told to stop, SIGINT": lambda: self.end_daemon(signal.SIGINT),
            "daemon told to stop, SIGHUP": lambda: self.end_daemon(signal.SIGHUP),
        }

    def unplug(self) -> None:
        """Removes the keyboard's and the synthesizer's ports for 1.5 s."""
        self.peer.close()
        time.sleep(1.5)
        self.peer = Peer(self.jack)

    def disconnect(self) -> None:
        """Disconnects the keyboard while keys are held and passed through, and connects it again."""
        self.set_control("thru", 1)
        for message in ((0x90, THRU_KEYS[0], 64), (0x90, 60, 64), (0xB0, 64, 127), (0xB1, 66, 127)):
            self.peer.send(*message)
        time.sleep(0.1)
        daemon_port = self.jack.wait_for_port("perceivers-live-in")
        self.jack.disconnect(self.peer.keys, daemon_port)
        wait_for(lambda: THRU_KEYS[0] not in self.peer.sounding)
        self.count_hanging(self.peer.sounding & {THRU_KEYS[0]}, excused=False)
        self.jack.connect(self.peer.keys, daemon_port)
        for message in ((0x80, THRU_KEYS[0], 64), (0x80, 60, 64), (0xB0, 64, 0), (0xB1, 66, 0)):
            self.peer.send(*message)

    def play_layered(self) -> None:
        """Plays each key on two channels, with pedal values around the switching point and all-notes-off messages, in a duet."""
        self.set_control("thru", 1)
        self.remote.send("mode", "duet")
        with self.checking_thru() as note_ons:
            for round_ in range(40):
                pitch = THRU_KEYS[round_ % len(THRU_KEYS)]
                note_ons += [(0x90, pitch), (0x91, pitch)]
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
        """Kills the JACK server and starts it again."""
        self.peer.close()
        self.jack.restart()
        self.peer = Peer(self.jack)

    def sleep(self) -> None:
        """Stops all processes for 3 s, as if the computer was suspended. Nothing is played meanwhile."""
        assert self.jack.process is not None
        everything = [*self.processes(), self.jack.process.pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in everything:
                os.kill(pid, number)
            time.sleep(3.0 if number == signal.SIGSTOP else 0.0)

    def overload(self) -> None:
        """Starts two busy processes per core, which run for five seconds, and returns after one."""
        for _ in range(2 * (os.cpu_count() or 1)):
            self.busy.append(subprocess.Popen([sys.executable, "-c", BUSY_PROCESS]))
        time.sleep(1.0)

    def end_daemon(self, number: signal.Signals) -> None:
        """Ends the daemon by a signal, counts the notes that still sound, and starts a new daemon."""
        self.daemon.signal(number)
        self.daemon.wait()
        wait_for(lambda: not self.peer.sounding)
        self.hung += len(self.peer.sounding)  # no process is left that could release them
        self.daemon = self.start_daemon()
        self.remote.close()
        self.remote = Remote(self.port)
        self.remote.send("register_low", THRU_KEYS[-1] + 1)

    def flood_midi(self) -> None:
        """Sends 10,000 messages per second. At higher rates RtMidi's buffer for JACK loses messages."""
        self.set_control("thru", 0)
        began = time.perf_counter()
        for number in range(3000):
            time.sleep(max(0.0, began + number * 3 / 10_000 - time.perf_counter()))
            pitch = self.rng.randint(0, 127)
            self.peer.send(0x90, pitch, 64)
            self.peer.send(0x80, pitch, 0)
            self.peer.send(0xB0, self.rng.randint(1, 60), self.rng.randint(0, 127))
        self.wait_for_arrival(lambda: self.log.delivered)

    def flood_osc(self) -> None:
        """Sends 5000 messages, with valid and unknown names and with values out of range, as fast as possible."""
        for _ in range(5000):
            self.remote.send(self.rng.choice(("temperature", "density", "nonsense", "pace")), self.rng.uniform(-3, 3))
        for name, value in (("temperature", 1.0), ("density", 0.0), ("pace", 0.5)):
            self.remote.send(name, value)

    def send_commands(self) -> None:
        """Sends commands and mode changes in quick succession, with key presses between them."""
        for _ in range(20):
            command = self.rng.choice(("panic", "yield", "takeover", "forget", "mode"))
            self.remote.send(command, *((self.rng.choice(MODES),) if command == "mode" else ()))
            self.peer.send(0x90, 60, 80)
            time.sleep(self.rng.uniform(0, 0.1))
            self.peer.send(0x80, 60, 0)

    def run_random(self) -> None:
        """Runs a random one of the faults that have run least often."""
        faults = self.faults()
        least = min(self.outcomes[name].times for name in faults)
        name = self.rng.choice([name for name in faults if self.outcomes[name].times == least])
        self.run(name, faults[name])

    def run(self, name: str, inject: Callable[[], None]) -> None:
        """Injects a fault while the machine plays. Then counts lost notes, measures the recovery, and counts hung notes."""
        outcome, self.hung, self.lost, self.dropped = self.outcomes[name], 0, 0, 0
        outcome.times += 1
        self.remote.send("takeover")
        time.sleep(0.5)  # for notes to sound
        inject()
        began = time.perf_counter()
        self.set_control("mode", "listen")
        self.check_thru()
        self.set_control("mode", "respond")
        outcome.recovery.append(time.perf_counter() - began if self.takeover(timeout=15.0, repeat=0.25) is not None else math.inf)
        self.check_hanging()
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
                soak.set_control("thru", soak.rng.randint(0, 1))
                soak.play(PLAY_SECONDS)
                soak.remote.send("mode", "respond")
                soak.remote.send("yield")
                for _ in range(5):
                    time.sleep(0.3)
                    latency = soak.takeover(timeout=2.0, repeat=2.0)
                    soak.remote.send("yield")
                    samples.append(Sample(share, latency, *soak.resources()))
                soak.run_random()
                soak.play(PLAY_SECONDS / 2)
            for _ in range(max(1, round(minutes / 15))):
                for name, inject in soak.final_faults().items():
                    soak.run(name, inject)
                    soak.play(PLAY_SECONDS / 2)
        except Exception as error:  # the report is printed before it is raised
            failed = error
        finally:
            soak.close()
    growing = report(soak.outcomes, samples, minutes, json_file)
    if failed is not None:
        raise failed
    if any(outcome.hung or outcome.lost or math.inf in outcome.recovery for outcome in soak.outcomes.values()):
        raise click.ClickException("a note hung or was lost, or the machine did not play again")
    if growing and minutes >= GROWTH_AFTER:
        raise click.ClickException(f"grown from the first quarter to the last: {', '.join(growing)}")


if __name__ == "__main__":
    main()
