"""The commands as a user types them, in subprocesses, with the bundled checkpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.events import NOTE_OFF, NOTE_ON, Timed
from engine.midi_file import read_file, write_file
from perceivers_live.cli import main
from perceivers_live.commands.demo import bundled_call
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.settings import Settings, default_toml

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("perceivers-live")


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd)


def run_without_torch(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs the command in a new interpreter, which fails if torch was imported."""
    call = f"from perceivers_live.cli import main; main({arguments!r}, standalone_mode=False)"
    code = f"import sys; {call}; assert 'torch' not in sys.modules"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_help_names_every_control_and_imports_no_torch() -> None:
    done = run_without_torch(["--help"])
    assert done.returncode == 0, done.stderr
    for name in CONTROLS:
        assert "--" + name.replace("_", "-") in done.stdout


def test_rendering_on_the_cpu_never_imports_torch(tmp_path: Path) -> None:
    arguments = ["render", str(bundled_call()), "-o", str(tmp_path / "out.mid"), "--seed", "1", "--response-length", "0.3"]
    done = run_without_torch(arguments)
    assert done.returncode == 0, done.stderr


def test_render_is_reproducible_with_a_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        done = run("render", bundled_call(), "-o", tmp_path / f"{name}.mid", "--seed", seed, "--reply-only")
        assert done.returncode == 0, done.stderr
    a, b, c = ((tmp_path / f"{name}.mid").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_reply_follows_the_call_with_varied_pitches_and_velocities(tmp_path: Path) -> None:
    done = run("render", bundled_call(), "-o", tmp_path / "reply.mid", "--seed", 5, "--reply-only")
    assert done.returncode == 0, done.stderr
    reply = read_file(tmp_path / "reply.mid")
    onsets = [one for one in reply if one.action < NOTE_OFF]
    call_end = read_file(bundled_call())[-1].time
    assert len(onsets) >= 10
    assert onsets[0].time > call_end
    assert len({one.velocity for one in onsets}) >= 4
    assert len({one.action for one in onsets}) >= 5
    assert 1.0 < onsets[-1].time - onsets[0].time < 60.0


def test_demo_writes_both_parts_and_prints_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVERS_LIVE_COMMAND", "./run")
    done = run("demo", "--fast", "--seed", "2", "--response-length", "0.3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "you" in done.stdout
    assert "machine" in done.stdout
    assert '  ./run --in "part of its name"' in done.stdout.splitlines()
    assert len(read_file(tmp_path / "demo.mid")) > len(read_file(bundled_call()))


@pytest.mark.parametrize("options", [("--mode", "listen"), ("--mode", "duet"), ()])
def test_real_time_demo_ends_after_the_call_in_each_mode(tmp_path: Path, options: tuple[str, ...]) -> None:
    call = [Timed(2.0 * phrase + 0.1 * i, action) for phrase in (0, 2) for i, action in enumerate((60, 188, 64, 192, 67, 195))]
    write_file(tmp_path / "call.mid", [("human", [one._replace(velocity=80 * (one.action < 128)) for one in call])])
    done = run("demo", "--call", "call.mid", "--response-length", "0.1", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    played = read_file(tmp_path / "demo.mid")
    assert sum(one.action < 128 for one in played) >= (6 if "listen" in options else 7)  # the call has six
    assert ("\n0 notes in reply" in done.stdout) == ("listen" in options)


def interrupted(line: str, *arguments: str, cwd: Path) -> tuple[int, str]:
    """Sends Ctrl-C to a command once it has printed a line that contains ``line``; returns its exit status and output."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "perceivers_live", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    output = ""
    while line not in output and (more := process.stdout.readline()):
        output += more
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output += process.communicate(timeout=60)[0]
    return process.returncode, output


def test_ctrl_c_in_a_demo_keeps_what_was_played(tmp_path: Path) -> None:
    status, output = interrupted("0:01", "demo", cwd=tmp_path)
    assert status == 0
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "stopped; what was played is in demo.mid"
    played = read_file(tmp_path / "demo.mid")
    assert 0 < len(played) < len(read_file(bundled_call()))
    assert sum(one.action < NOTE_OFF for one in played) == sum(NOTE_OFF <= one.action < 2 * NOTE_OFF for one in played)


def test_ctrl_c_without_a_result_prints_one_line(tmp_path: Path) -> None:
    status, output = interrupted("runtime", "render", str(bundled_call()), "-o", "out.mid", "--mode", "solo", cwd=tmp_path)
    assert status == 130
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "stopped"
    assert not (tmp_path / "out.mid").exists()


@pytest.mark.parametrize("command", [("render", "call.mid"), ("demo", "--fast", "--call", "call.mid")])
def test_call_file_is_not_overwritten(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "call.mid").write_bytes(bundled_call().read_bytes())
    done = run(*command, "-o", "../" + tmp_path.name + "/call.mid", cwd=tmp_path)
    assert done.returncode != 0
    assert "the call itself" in done.stderr.splitlines()[-1]
    assert (tmp_path / "call.mid").read_bytes() == bundled_call().read_bytes()


def test_random_seed_is_printed_and_reproduces_the_reply(tmp_path: Path) -> None:
    first = run("render", bundled_call(), "-o", tmp_path / "first.mid", "--response-length", "0.3")
    drawn = re.search(r"--seed (\d+)", first.stdout)
    assert drawn is not None
    run("render", bundled_call(), "-o", tmp_path / "again.mid", "--response-length", "0.3", "--seed", drawn[1])
    assert (tmp_path / "first.mid").read_bytes() == (tmp_path / "again.mid").read_bytes()


def test_config_prints_the_current_settings_as_an_equivalent_file(tmp_path: Path) -> None:
    text = '[midi]\nin = "Piano 🎹 \\"A\\""\n[controls]\ntemperature = 0.9\nhold = true\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    first = run("config", "--config", "mine.toml", cwd=tmp_path)
    assert 'in = "Piano 🎹 \\"A\\""' in first.stdout
    (tmp_path / "again.toml").write_text(first.stdout, encoding="utf-8")
    again = run("config", "--config", "again.toml", cwd=tmp_path)
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "ピアノ.toml"
    path.write_text("")
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([PROGRAM, "config", "--config", path], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert r"\u30d4\u30a2\u30ce.toml" in done.stdout.splitlines()[0]


def test_config_prints_defaults_that_it_accepts(tmp_path: Path) -> None:
    done = run("config", "--default")
    assert done.stdout == default_toml()
    (tmp_path / "mine.toml").write_text(done.stdout)
    assert run("config", "--config", tmp_path / "mine.toml").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("render", "{tmp}/none.mid", "-o", "{tmp}/out.mid"), ["none.mid"]),
        (("render", "{tmp}/text.mid", "-o", "{tmp}/out.mid"), ["text.mid", "MIDI"]),
        (("render", "{call}", "-o", "{tmp}/no/such/folder/out.mid"), ["cannot be written"]),
        (("render", "{call}", "-o", "{tmp}/out.mid", "--checkpoint", "{tmp}"), ["not a checkpoint"]),
        (("render", "{call}", "-o", "{tmp}/out.mid", "--runtime", "abacus"), ["abacus"]),
        (("demo", "--fast", "--temperature", "9"), ["temperature", "9", "0.5..1"]),
        (("--in", "Piano", "ports"), ["--debug", "ports"]),
        (("--temperature", "0.5", "demo", "--fast"), ["--debug", "demo"]),
        (("config", "--config", "{tmp}/bad.toml"), ["bad.toml:2", "tempreature", "temperature"]),
        (("config", "--config", "{tmp}/open.toml"), ["beyond loopback", "allow"]),
        (("config", "--config", "{tmp}/open_page.toml"), ["[page]", "beyond loopback", "allow"]),
        (("--page-host", "0.0.0.0", "--page-port", "0"), ["[page]", "beyond loopback", "allow"]),
        (("doctor", "--json", "{tmp}/no/such/folder/found.json"), ["cannot be written"]),
        (("render", "{call}", "-o", "{tmp}/out.mid", "--mode", "listen"), ["mode listen and hold play nothing"]),
        (("render", "{tmp}/held.mid", "-o", "{tmp}/out.mid", "--last", "3"), ["no note begins in its last 3 seconds"]),
        (("export", "{tmp}", "{tmp}/text.mid/bundle"), ["not a checkpoint"]),
        (("page", "--engine", "nobody at home"), ["nobody"]),
        (("recordings", "--config", "{tmp}/nobody.toml"), ["~no such user/x"]),
        (("recordings", "--config", "{tmp}/nul.toml"), ["a\\x00b"]),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: tuple[str, ...], words: list[str]) -> None:
    (tmp_path / "text.mid").write_text("this is no MIDI file")
    (tmp_path / "bad.toml").write_text("[controls]\ntempreature = 1.0\n")
    (tmp_path / "nobody.toml").write_text("[recording]\nfolder = '~no such user/x'\n")
    (tmp_path / "nul.toml").write_text('[recording]\nfolder = "a\\u0000b"\n')
    (tmp_path / "open.toml").write_text('[osc]\nhost = "0.0.0.0"\n')
    (tmp_path / "open_page.toml").write_text('[page]\nhost = "0.0.0.0"\n')
    write_file(tmp_path / "held.mid", [("human", [Timed(0.0, NOTE_ON + 60, 80), Timed(5.0, NOTE_OFF + 60)])])
    done = run(*(one.format(tmp=tmp_path, call=bundled_call()) for one in arguments), cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_error_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([PROGRAM, "config", "--default"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: the output cannot be written: No space left on device"]


SERVE = f"'{sys.executable}' -m perceivers_live.cli serve --runtime onnx"


def test_doctor_measures_the_connection_to_a_remote_engine(tmp_path: Path) -> None:
    done = run("doctor", "--engine", SERVE, "--json", "found.json", cwd=tmp_path)
    assert re.search(r"remote engine +onnx at python\S*, same version and checkpoint as here", done.stdout), done.stdout
    assert re.search(r"network +round trip p50 \d+\.\d+", done.stdout), done.stdout
    assert re.search(r"remote event +p50 .* events a second", done.stdout), done.stdout


def test_unreachable_engine_is_reported_without_a_traceback(tmp_path: Path) -> None:
    for engine, message in (
        ("no-such-command", "cannot be started"),
        ("ssh://-oX", "allowed is ssh://"),
        ("false", "ended with status 1"),
    ):
        done = run("--engine", engine, cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_the_page_command_serves_the_page_even_if_the_settings_switch_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, performed = tmp_path / "off.toml", list[Settings]()
    file.write_text("[page]\nenabled = false\n")
    monkeypatch.setattr("perceivers_live.cli._perform", lambda settings, **_: performed.append(settings))
    done = CliRunner().invoke(main, ["page", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert performed[0].page.enabled
    assert (performed[0].midi.input_port, performed[0].midi.output_port) == ("page", "page")
