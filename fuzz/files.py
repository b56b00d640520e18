"""Targets that read files: settings, bindings, MIDI files, recordings, states, checkpoints, training data."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from engine.checkpoint import read_config
from engine.codec import encode
from engine.config import PRESETS, CheckpointError, ModelConfig
from engine.engine import Engine
from engine.events import NOTE_OFF, NOTE_ON, REST, Event, Timed
from engine.midi_file import MidiFileError, read_file, write_file
from engine.states import StateError, checksum, load_state, save_state
from fuzz.contract import Maker, Target, one_line_errors, require
from fuzz.toy import SHORT, Toy
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.midi_map_file import Binding, MidiMapError, read, write
from perceivers_live.controls.settings import ConfigError, default_toml, load
from perceivers_live.recording.journal import HEADER, Entry
from perceivers_live.recording.recorder import recover
from tests.music import improvise, improvise_timed

SMALLEST = ModelConfig(width=2, heads=1, kv_heads=1, layers=1, scales=(), window=2, mlp=1, slack=1)
MODEL = "0123456789abcdef" * 4


def settings(scratch: Path) -> Target:
    """``perceivers_live.toml``."""
    path = scratch / "perceivers_live.toml"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with one_line_errors(ConfigError):
            load(path)

    tables = default_toml().split("\n\n")
    return Target(feed, [default_toml().encode(), *(table.encode() for table in tables)], 8192)


def bindings(scratch: Path) -> Target:
    """``midi_map.toml``."""
    path = scratch / "midi_map.toml"
    write(path, [Binding(name, number, number % 17) for number, name in enumerate(CONTROLS)])
    whole = path.read_bytes()
    write(path, [Binding("temperature", 20, 1, 0.5, 1.5), Binding("takeover", 21)])

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with one_line_errors(MidiMapError):
            write(path, (found := read(path, ("takeover",))))
            require(read(path, ("takeover",)) == found, "the bindings are different after writing and reading them")

    return Target(feed, [path.read_bytes(), whole])


def midi_file(scratch: Path) -> Target:
    """A MIDI file as input of ``perceivers-live render``."""
    path = scratch / "call.mid"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with one_line_errors(MidiFileError):
            timed = read_file(path)
            require(all(a.time <= b.time for a, b in pairwise(timed)), "times are not ascending")
            require(len(encode(timed)) <= 100 * len(data) + 100_000, "a small file gives a huge number of events")
            write_file(path, [("again", timed)])

    return Target(feed, _midi_files(path))


def training_file(scratch: Path) -> Target:
    """A MIDI file as training data: the fast and the sequential reader give the same actions."""
    from engine.midi_file import load, to_timed_actions
    from trainer.data import packed_times
    from trainer.reading import actions_of, prepare_actions, to_actions, to_actions_fast

    path = scratch / "piece.mid"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with one_line_errors(MidiFileError):
            performance = load(path)
            if (fast := to_actions_fast(performance)) is not None:
                both = zip(fast, actions_of(to_timed_actions(performance)), strict=True)
                require(all(np.array_equal(one, other) for one, other in both), "the fast reader gives other actions")
            for pedal in ("events", "extend"):
                found = prepare_actions(to_actions(performance), pedal)
                require(
                    np.isfinite(found.times).all() and (np.diff(found.times) >= 0).all(), "times are not finite and ascending"
                )
                require((np.diff(packed_times(found).astype(np.int64)) >= 0).all(), "packed times overflow")

    return Target(feed, _midi_files(path))


def _midi_files(path: Path) -> list[bytes]:
    made = []
    for tracks in (1, 2):
        write_file(path, [(f"part {part}", improvise_timed(60, seed=part)) for part in range(tracks)])
        made.append(path.read_bytes())
    tempo = b"\x00\xff\x51\x03\x07\xa1\x20" + b"\x60\x90\x3c\x40\x60\x3e\x00\x00\xf0\x03\x7e\x7f\xf7" + b"\x00\xff\x2f\x00"
    head = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk\x00\x00\x00"
    bare = head + bytes([len(tempo)]) + tempo
    return [*made, bare, b"RIFF" + (len(bare) + 12).to_bytes(4, "little") + b"RMIDdata" + len(bare).to_bytes(4, "little") + bare]


def journal(scratch: Path) -> Target:
    """The journal of a session that was killed."""
    played = [Timed(0.1 * i, NOTE_ON + 60 if i % 2 == 0 else NOTE_OFF + 60, 64 * (1 - i % 2)) for i in range(12)]
    whole = HEADER + b"".join(Entry(i % 2, one).encoded() for i, one in enumerate(played))

    def feed(data: bytes) -> None:
        shutil.rmtree(scratch)
        scratch.mkdir()
        for name, content in (("as-it-is", data), ("checked", _checked(data))):
            (scratch / f"{name}.journal").write_bytes(content)
        for path in recover(scratch):
            with one_line_errors(MidiFileError):  # a recording may be longer than the limit of read_file
                read_file(path)
        require(not list(scratch.glob("*.journal")), "a journal remains after recovery")

    def _checked(data: bytes) -> bytes:
        """A journal with records made from these bytes, with valid checksums."""
        times = np.frombuffer(
            data[: len(data) // 12 * 12], [("time", "<f8"), ("action", "<u2"), ("velocity", "u1"), ("part", "u1")]
        )
        return HEADER + b"".join(Entry(int(part), Timed(float(t), int(a), int(v))).encoded() for t, a, v, part in times)

    bare = b"".join(Entry(i % 2, one).encoded()[:12] for i, one in enumerate(played))
    return Target(feed, [whole, bare])


def with_checksum(data: bytes, path: Path) -> bytes:
    """The saved state with a valid checksum if its tensors can be read, else the same bytes. Overwrites ``path``."""
    path.write_bytes(data)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("state", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return save(tensors, {"state": text, "sha256": checksum(text, tensors)})
    except Exception:  # an error of safetensors, or a dtype that numpy lacks
        return data


def state(scratch: Path) -> Target:
    """A saved state."""
    path = scratch / "a.state"
    made = []
    for count in (2, 40):
        engine = Engine(Toy())
        engine.absorb(improvise(count, seed=1)[1:])
        save_state(engine.snapshot(), path, model=MODEL, seed=7)
        made.append(path.read_bytes())

    def feed(data: bytes) -> None:
        for content in (data, with_checksum(data, path)):
            path.write_bytes(content)
            with one_line_errors(StateError):
                snapshot, _ = load_state(path, SHORT, model=MODEL)
                engine = Engine(Toy())
                engine.restore(snapshot)
                engine.absorb([Event(100, REST)])
                engine.rewind(engine.position - 1)
                require(engine.step == snapshot.moments[-1].sounding.step, "the restored engine is at another step")

    return Target(feed, made)


def config(scratch: Path) -> Target:
    """A checkpoint's ``config.json``."""

    def feed(data: bytes) -> None:
        (scratch / "config.json").write_bytes(data)
        with one_line_errors(CheckpointError):
            read_config(scratch)

    return Target(feed, [json.dumps({"model": preset.to_dict(), "steps": 7}).encode() for preset in PRESETS.values()])


def weights(scratch: Path) -> Target:
    """A checkpoint's ``model.safetensors``."""
    from engine.checkpoint import load_model, save_model
    from engine.model import PerceiverS

    save_model(PerceiverS(SMALLEST), scratch)
    path = scratch / "model.safetensors"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with one_line_errors(CheckpointError):
            load_model(scratch)

    return Target(feed, [path.read_bytes()], 1 << 15)


def graph(scratch: Path) -> Target:
    """A checkpoint's ``step.onnx``."""
    return _graph(scratch, "step.onnx")


def heads(scratch: Path) -> Target:
    """A checkpoint's ``decide.onnx``."""
    return _graph(scratch, "decide.onnx")


def _graph(scratch: Path, name: str) -> Target:
    import torch

    from engine.checkpoint import save_model
    from engine.model import PerceiverS
    from engine.runtimes.choose import open_runtime
    from engine.sampling import SamplingControls, sampling_bias
    from trainer.export import write_onnx

    torch.manual_seed(1)
    model = PerceiverS(SMALLEST)
    save_model(model, scratch)
    write_onnx(model, scratch)
    whole = (scratch / name).read_bytes()

    def feed(data: bytes) -> None:
        (scratch / name).write_bytes(data)
        with one_line_errors(CheckpointError):
            engine = Engine(open_runtime("onnx", scratch))
            with suppress(Exception):  # any exception: the daemon reports it and continues
                for _ in range(3):
                    chances = sampling_bias(
                        engine.sounding, SamplingControls(), np.random.default_rng(1), own=frozenset(), own_pedal=False
                    )
                    engine.absorb([engine.decide(chances)])

    return Target(feed, [whole], len(whole) + 64)


def archive(scratch: Path) -> Target:
    """An archive of training data."""
    from trainer.data import DataError
    from trainer.unpack import unpack

    cache, path = scratch / "cache", scratch / "archive"
    made = []
    with zipfile.ZipFile(zipped := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/b.mid", bytes(300))
        file.writestr("../c.mid", b"out")
    made.append(zipped.getvalue())
    for kind in ("w:", "w:gz", "w:bz2", "w:xz"):
        with tarfile.open(fileobj=(packed := io.BytesIO()), mode=kind) as tar:
            info = tarfile.TarInfo("a/b.mid")
            info.size = 300
            tar.addfile(info, io.BytesIO(bytes(300)))
        made.append(packed.getvalue())

    def feed(data: bytes) -> None:
        shutil.rmtree(scratch)
        scratch.mkdir()
        path.write_bytes(data)
        with one_line_errors(DataError):
            unpack(path, cache, limit=1 << 20)
        require({one.name for one in scratch.iterdir()} <= {"cache", "archive"}, "a file was written outside the cache")

    return Target(feed, made, 16_384)


def cache(scratch: Path) -> Target:
    """The index of packed training data."""
    from trainer.data import FORMAT, Corpus, DataError

    for name, kind in (("times", np.uint32), ("actions", np.uint16), ("velocities", np.uint8)):
        np.save(scratch / f"{name}.npy", np.arange(20, dtype=kind))
    pieces = [
        {"name": "a.mid", "split": "train", "start": 0, "stop": 12},
        {"name": "b", "split": "test", "start": 12, "stop": 20},
    ]

    def feed(data: bytes) -> None:
        (scratch / "index.json").write_bytes(data)
        with one_line_errors(DataError):
            corpus = Corpus(scratch)
            for piece in range(len(corpus.pieces)):
                require(len(corpus.actions(piece).times) == corpus.length(piece), "a piece has the wrong length")
            corpus.split("train")

    return Target(feed, [json.dumps({"format": FORMAT, "pedal": "events", "pieces": pieces, "skipped": {}}).encode()])


TARGETS: dict[str, Maker] = {
    maker.__name__.replace("_", "-"): maker
    for maker in (settings, bindings, midi_file, training_file, journal, state, config, weights, graph, heads, archive, cache)
}
