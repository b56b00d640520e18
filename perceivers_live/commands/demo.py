"""``perceivers-live demo``: plays a bundled call to the performer and player of a live session, without MIDI ports."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click

from engine.engine import Engine
from engine.errors import program
from engine.events import NOTE_OFF, PITCHES, SUSTAIN_DOWN, Timed
from engine.midi import MessageReader, message_of, releases
from engine.midi_file import read_file, write_file
from perceivers_live.commands.live_roll import LiveRoll
from perceivers_live.commands.piano_roll import Part, draw, notes_of
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import MidiSettings, OscSettings, Settings
from perceivers_live.performer.performer import State
from perceivers_live.performer.turns import MAX_REPLY
from perceivers_live.player.ledger import Send
from perceivers_live.session.observers import Observer
from perceivers_live.session.offline import has_notes, render
from perceivers_live.session.session import Session

FRAME = 0.05  # seconds between two updates of the display
REPLY_TIMEOUT = 1.0  # seconds to wait for a reply beyond the longest silence
NEXT = """
Now play yourself, in the browser, which is the keyboard and the sound:
  {program} page
Or with your own keyboard. The first line lists the MIDI ports; the second listens to one and plays on {output}:
  {program} ports
  {program} --in "part of its name"{out}
In a DAW choose that port as the input of an instrument track. Controls can be set by OSC on 127.0.0.1:9010:
  /perceivers/temperature 1.1
"""


def bundled_call() -> Path:
    return Path(__file__).parents[1] / "music" / "call.mid"


def run(
    engine: Engine, settings: Settings, call_file: Path, output: Path, *, fast: bool = False, send: Send | None = None
) -> None:
    """Plays the call and the reply to it, draws both, and writes both to ``output``. Ctrl-C ends playing; what was played by
    then is written.

    ``fast``: not in real time. ``send``: receives both as raw messages. Raises ``MidiFileError`` if the call is not a MIDI file.
    """
    call = read_file(call_file)
    if not has_notes(call):
        raise click.ClickException(f"{call_file}: no notes in it")
    call = [one._replace(time=one.time - call[0].time) for one in call]
    controls = Controls(settings.controls)
    stopped = False
    if fast:
        reply = render(engine, call, controls, settings.phrase)
    else:
        controls.set("thru", False)  # the call is sent in any case
        call, reply, stopped = _perform(engine, call, controls, settings, send or (lambda message: None))
        if not call:
            click.echo("\nstopped before anything was played")
            return
    width = min(shutil.get_terminal_size((100, 30)).columns, 160)
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    parts = [Part(name, *notes_of(timed)) for name, timed in (("you", call), ("machine", reply))]
    click.echo("\n" + draw(parts, width, color=sys.stdout.isatty(), unicode=unicode))
    try:
        write_file(output, [("human", call), ("machine", reply)])
    except OSError as error:
        raise click.ClickException(f"{output}: cannot be written ({error.strerror})") from error
    notes = sum(one.action < NOTE_OFF for one in reply)
    if stopped:
        click.echo(f"\nstopped; what was played is in {output}")
        return
    click.echo(f"\n{notes} notes in reply (--seed {settings.controls['seed']}); both parts are in {output}.{_next()}")


def _next() -> str:
    """What the user can do next."""
    if sys.platform == "win32":  # it has no virtual ports
        return NEXT.format(program=program(), output="another", out=' --out "loopMIDI Port"')
    return NEXT.format(program=program(), output='the virtual port "perceivers-live"', out="")


def _perform(
    engine: Engine, call: Sequence[Timed], controls: Controls, settings: Settings, send: Send
) -> tuple[list[Timed], list[Timed], bool]:
    """Plays the call to a live session in real time. Ends after the machine's reply, after a minute of a solo, soon if there is
    no reply, or on Ctrl-C. Returns the part of the call that sounded, the reply (both with times relative to the start of the
    call), and whether Ctrl-C ended it.
    """
    started = time.perf_counter() + 0.5
    end = started + call[-1].time
    sounded: list[tuple[int, Timed]] = []
    channel = settings.midi.channel - 1
    session = Session(
        engine,
        Settings(phrase=settings.phrase, midi=MidiSettings(channel=settings.midi.channel), osc=OscSettings(enabled=False)),
        controls,
        send,
        observers=[Observer(human=lambda one: sounded.append((0, one)), machine=lambda one: sounded.append((1, one)))],
    )
    worker = threading.Thread(target=session.run, name="performer")
    worker.start()
    roll = _roll()
    shown, waiting, replied = 0, list(reversed(call)), False
    try:
        while True:
            now = time.perf_counter()
            while waiting and started + waiting[-1].time <= now:
                one = waiting.pop()
                message = message_of(one.action, one.velocity, channel)
                session.receive(started + one.time, message)
                send(message)
            shown = _show(roll, sounded, shown, started)
            roll.advance(max(0.0, now - started))
            playing = session.performer.state is State.PLAYING
            replied = replied or (playing and not waiting)
            if not waiting and not playing and (replied or now > end + settings.phrase.max_silence_ms / 1000 + REPLY_TIMEOUT):
                break
            if playing and controls.get("mode") == "solo" and now > end + MAX_REPLY:
                session.commands()["yield"]()
            time.sleep(FRAME if not waiting else min(FRAME, max(0.0, started + waiting[-1].time - time.perf_counter())))
        _show(roll, sounded, shown, started)
        stopped = False
    except KeyboardInterrupt:
        stopped = True
    finally:
        session.stop()
        worker.join()
        for release in releases(channel):  # also of notes of the call, if it was interrupted
            send(release)
    yours, reply = ([one._replace(time=one.time - started) for part, one in sounded if part == which] for which in (0, 1))
    return _released(yours) if stopped else list(call), reply, stopped


def _released(played: list[Timed]) -> list[Timed]:
    """Adds releases for keys and pedal that are still held at the end."""
    reader = MessageReader()
    whole = [same for one in played for same in reader.feed(one.time, message_of(one.action, one.velocity))]
    return whole + reader.close(played[-1].time + FRAME if played else 0.0)


def _roll() -> LiveRoll:
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")

    def write(lines: str) -> None:
        click.echo(lines, nl=False)

    return LiveRoll(write, min(shutil.get_terminal_size((100, 30)).columns, 100), sys.stdout.isatty(), unicode=unicode)


def _show(roll: LiveRoll, sounded: list[tuple[int, Timed]], shown: int, started: float) -> int:
    """Draws what sounded since the last call; returns how many actions have been drawn in all."""
    for part, one in sounded[shown:]:
        roll.advance(max(0.0, one.time - started))
        if one.action < NOTE_OFF:
            roll.note_on(part, one.action, one.velocity)
        elif one.action < SUSTAIN_DOWN:
            roll.note_off(part, one.action % PITCHES)
        else:
            roll.pedal(part, one.action == SUSTAIN_DOWN)
        shown += 1
    return shown
