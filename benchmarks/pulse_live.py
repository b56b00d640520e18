"""How closely notes follow a MIDI clock with ``pulse``: python -m benchmarks.pulse_live [--seconds 30] [--bpm 120] [--json FILE]

Pure Data sends a MIDI clock through JACK. The daemon plays a solo with ``pulse`` at 0, 0.5 and 1; Pure Data records it. All times
are measured by Pure Data. ``off``: mean distance of onsets (of a chord: its first) from the grid of the clock, in ms; ``chance``:
the same for random onsets; ``spread``: time from a chord's first onset to its last, in ms.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.heard import chord_spread
from benchmarks.likeness import passage
from benchmarks.pulse import STRENGTHS, TEMPI, Metronome
from engine.events import NOTE_OFF, NOTE_ON, Timed
from perceivers_live.commands.measuring import computer
from perceivers_live.performer.pulse import Subdivision
from tests.live.daemon import Daemon, Home
from tests.live.jack_server import JackServer
from tests.live.pure_data import PureData
from tests.live.recording import Message

PPQ, TICK, START, STOP = 24, 0xF8, 0xFA, 0xFC
SETTLE = 3.0  # seconds that are not counted, in which the daemon detects the tempo


def clock(bpm: float, seconds: float) -> list[Message]:
    """The messages of a MIDI clock from start to stop; times in seconds."""
    ticks = round(seconds * bpm / 60 * PPQ)
    times = [60 * i / bpm / PPQ for i in range(ticks)]
    return [Message(0.0, START), *(Message(time, TICK) for time in times), Message(times[-1] + 0.01, STOP)]


def timed(received: Sequence[Message], since: float, until: float) -> list[Timed]:
    """The note-ons between two times, and their note-offs."""
    found, held = list[Timed](), set[int]()
    for message in received:
        struck = message.status & 0xF0 == 0x90 and message.data2 > 0
        if struck and since <= message.time < until:
            held.add(message.data1)
            found.append(Timed(message.time, NOTE_ON + message.data1, message.data2))
        elif message.status & 0xF0 in (0x80, 0x90) and not struck and message.data1 in held:
            held.discard(message.data1)
            found.append(Timed(message.time, NOTE_OFF + message.data1))
    return found


def measured(jack: JackServer, pure_data: PureData, home: Home, bpm: float, pulse: float, seconds: float) -> dict[str, Any]:
    """Has the daemon play a solo with this tempo and pulse, and measures what Pure Data received. ``off``, ``chance`` and
    ``spread`` are in ms.
    """
    received, sent = len(pure_data.received()), len(pure_data.played())
    ports = ("--in", pure_data.output_port, "--out", pure_data.input_port)
    daemon = Daemon(("--mode", "solo", "--pulse", str(pulse), "--seed", "3", *ports), jack.env, home)
    try:
        daemon.wait_for_line("listening;")
        pure_data.play(clock(bpm, SETTLE + seconds))
        pure_data.wait_for(lambda: not pure_data.playing, SETTLE + seconds + 60)
    finally:
        daemon.end()
    ticks = [message.time for message in pure_data.played()[sent:] if message.status == TICK]
    beats = np.array(ticks[::PPQ])
    music = passage(timed(pure_data.received()[received:], beats[0] + SETTLE, ticks[-1]))
    begin = next(action.time for action in timed(pure_data.received()[received:], beats[0] + SETTLE, ticks[-1]))
    onsets = np.array([chord[0].start for chord in music.chords()]) + begin
    parts = Subdivision(Metronome(bpm)).parts()
    positions = np.interp(onsets, beats, np.arange(len(beats))) * parts
    off = np.abs(positions - np.round(positions)) / parts * 60 / bpm
    return {
        "bpm": bpm,
        "pulse": pulse,
        "off": 1000 * float(off.mean()),
        "chance": 15_000 / bpm / parts,
        "spread": 1000 * chord_spread(music),
        "notes": len(music.notes),
        "rate": len(music.notes) / seconds,
    }


@click.command()
@click.option("--seconds", default=30.0, show_default=True, help="Length of each solo.")
@click.option("--bpm", "tempi", multiple=True, type=float, default=TEMPI, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(seconds: float, tempi: Sequence[float], json_file: Path | None) -> None:
    print(f"{computer()}; Pure Data's clock through JACK, solos of {seconds:g} s")
    print(f"{'bpm':>5}{'pulse':>7}{'off, ms':>9}{'chance':>8}{'spread, ms':>12}{'notes':>7}{'rate/s':>8}")
    rows = []
    with ExitStack() as stack:
        jack = stack.enter_context(JackServer())
        os.environ.update({name: jack.env[name] for name in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER")})
        pure_data = stack.enter_context(PureData())
        home = Home(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        home.configure('[clock]\nsource = "midi"\n[osc]\nenabled = false\n')
        for bpm in tempi:
            for pulse in STRENGTHS:
                row = measured(jack, pure_data, home, bpm, pulse, seconds)
                rows.append(row)
                line = f"{bpm:5g}{pulse:7g}{row['off']:9.1f}{row['chance']:8.1f}{row['spread']:12.1f}"
                print(f"{line}{row['notes']:7}{row['rate']:8.1f}", flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": computer(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
