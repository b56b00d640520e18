"""Settings: the file, its validation, and the overrides."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.folders import config_folder
from perceivers_live.controls.catalogue import CONTROLS
from perceivers_live.controls.registry import Controls
from perceivers_live.controls.settings import SCHEMA, ConfigError, MidiSettings, Settings, default_toml, find_file, load

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path for a settings file, in a folder where no other settings file is found."""
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_CONFIG_HOME", "HOME", "APPDATA"):  # where the user's folder is on Linux, macOS, Windows
        monkeypatch.setenv(variable, str(tmp_path / "user"))
    return tmp_path / "given.toml"


def refusal(file: Path, content: str | bytes) -> str:
    """The error message for `content`, without the folder's name."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refused:
        load(file)
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 700
    assert message.startswith(str(file))
    return message.removeprefix(str(file.parent))[1:]


def test_the_file_in_the_repository_is_the_generated_one() -> None:
    assert (REPOSITORY / "perceivers_live.toml").read_text(encoding="utf-8") == default_toml()


def test_generated_file_contains_exactly_the_defaults(file: Path) -> None:
    file.write_text(default_toml(), encoding="utf-8")
    assert load(file) == Settings(path=file)
    assert load() == Settings()


def test_the_generated_file_explains_every_setting_above_it() -> None:
    lines = default_toml().splitlines()
    for table, specs in SCHEMA.items():
        begin = lines.index(f"[{table}]")
        for key, spec in specs.items():
            at = next(n for n, line in enumerate(lines) if n > begin and line.startswith(f"{key} = "))
            assert lines[at - 1] == f"# {spec.help} ({spec.allowed})"
    assert all(spec.check(spec.default) == spec.default for specs in SCHEMA.values() for spec in specs.values())


def test_file_overrides_defaults_and_options_override_the_file(file: Path) -> None:
    file.write_text('[midi]\nin = "Piano"\nchannel = 3\n[controls]\ntemperature = 1.5\nmode = "listen"\n')
    loaded = load(file, {"midi.channel": 5, "controls.seed": 7, "engine.runtime": None})
    assert (loaded.midi.input_port, loaded.midi.channel, loaded.engine.runtime) == ("Piano", 5, "auto")
    assert (loaded.controls["temperature"], loaded.controls["mode"], loaded.controls["seed"]) == (1.5, "listen", 7)
    assert Controls(loaded.controls).get("seed") == 7
    assert loaded.path == file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[midi]\n\nchannel = 17", "given.toml:3: [midi] channel: found 17, allowed 1..16 (int)"),
        ("[midi]\nchannel = 1.0", "given.toml:2: [midi] channel: found 1.0, allowed 1..16 (int)"),
        ("[midi]\nchannel = true", "given.toml:2: [midi] channel: found True, allowed 1..16 (int)"),
        ("[midi]\nchanel = 3", "given.toml:2: [midi] chanel: unknown key, found 3; nearest is channel (1..16)"),
        ("[osc]\r\nenabled = 1\r\n", "given.toml:2: [osc] enabled: found 1, allowed true, false (switch)"),
        ('[osc]\nhost = ""', "given.toml:2: [osc] host: found '', allowed text of 1..255 characters"),
        (
            '[engine]\nruntime="tpu"',
            "given.toml:2: [engine] runtime: found 'tpu', allowed "
            "auto, tensorrt, cuda, cuda-compiled, mps, onnx, onnx-int8, eager (choice)",
        ),
        (
            "[osc]\nport = 1\n[controls]\n# density = 1\ndensity = nan",
            "given.toml:5: [controls] density: found nan, allowed -1.0..1.0 (float)",
        ),
        ("[controls]\ntemperature = 1.51", "given.toml:2: [controls] temperature: found 1.51, allowed 0.5..1.5 (float)"),
        (
            "[controls]\nseed = 0x" + "f" * 9000,
            "given.toml:2: [controls] seed: found a huge number, allowed -1..2147483647 (int)",
        ),
        ("[controls]\nthru = [1, 2]", "given.toml:2: [controls] thru: found [1, 2], allowed true, false (switch)"),
        ("\n[contrls]\nseed = 1", "given.toml:2: [contrls]: unknown table; nearest is [controls]"),
        ("[[midi]]\nchannel = 1", "given.toml:1: midi: found [{'channel': 1}], allowed only as the table [midi]"),
        ("midi = 1", "given.toml:1: midi: found 1, allowed only as the table [midi]"),
        ("# top\nport = 9010", "given.toml:2: port: found 9010 outside the tables; nearest is port in [osc] (1..65535)"),
        (
            "[phrase]\nmin_silence_ms = 3000",
            "given.toml:2: [phrase] min_silence_ms: found 3000, allowed up to max_silence_ms, which is 2500",
        ),
        (
            "[controls]\nregister_low = 60\nregister_high = 50",
            "given.toml:2: [controls] register_low: found 60, allowed up to register_high, which is 50",
        ),
        # Where only a TOML parser of our own could find the line, the error names only the file.
        ("midi.channel = 17", "given.toml: [midi] channel: found 17, allowed 1..16 (int)"),
        ('[midi]\n"channel" = 17', "given.toml: [midi] channel: found 17, allowed 1..16 (int)"),
        ('["midi"]\nchannel = 17', "given.toml: [midi] channel: found 17, allowed 1..16 (int)"),
        ('[midi]\n"a\\nb" = 1', "given.toml: [midi] a\\nb: unknown key, found 1; nearest is channel (1..16)"),
    ],
)
def test_error_names_the_line_and_the_allowed_values(file: Path, text: str, message: str) -> None:
    assert refusal(file, text) == message


@pytest.mark.parametrize(
    ("text", "options", "low", "high"),
    [
        ("[controls]\nregister_low = 110", {}, 110, 110),
        ("[controls]\nregister_high = 10", {}, 10, 10),
        (
            "[controls]\nregister_low = 40\nregister_high = 50",
            {"controls.register_low": 60, "controls.register_high": None},
            60,
            60,
        ),
        ("[controls]\nregister_low = 60\nregister_high = 50", {"controls.register_high": 70}, 60, 70),
        ("[controls]\nregister_low = 60", {"controls.seed": 5}, 60, 108),
    ],
)
def test_limit_given_alone_moves_its_partner(file: Path, text: str, options: dict[str, object], low: int, high: int) -> None:
    file.write_text(text)
    loaded = load(file, options).controls
    assert (loaded["register_low"], loaded["register_high"]) == (low, high)


def test_two_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="listen_low: found 60, allowed up to listen_high, which is 50"):
        load(None, {"controls.listen_low": 60, "controls.listen_high": 50})


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("[midi]\nchannel 3\n", "given.toml:2: not valid TOML: "),
        ("[midi]\nchannel = \n\n", "given.toml:2: not valid TOML: "),
        ("[midi]\nin = 'x'\n[midi]\n", "given.toml:3: not valid TOML: "),
        ('[midi]\nin = "never closed', "given.toml:2: not valid TOML: "),
        ("x = " + "9" * 5000, "given.toml: not valid TOML: "),
        ("x = " + "[" * 100_000, "given.toml: not valid TOML: nested too deeply"),
        (b"[midi]\nin = '\xff'", "given.toml:2: not UTF-8 text: found byte 0xff"),
        (b"PK\x03\x04" + bytes(100), "given.toml:1: not valid TOML: "),
        (b"#" * 1_000_001, "given.toml: larger than 1 MB"),
        # Parsing it would take an hour.
        ("[midi]\n" + "a." * 400_000 + "a = 1", "given.toml:2: found 400000 dots in a line, allowed 256"),
    ],
)
def test_invalid_toml_is_refused_with_the_line(file: Path, content: str | bytes, place: str) -> None:
    assert refusal(file, content).startswith(place)


def test_byte_order_mark_is_accepted(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf[midi]\nchannel = 2")
    assert load(file).midi.channel == 2


@pytest.mark.parametrize("name", ["absent.toml", ".", "absent/given.toml", "a\0b"])
def test_unreadable_file_error_is_one_line(file: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        load(file.parent / name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("midi.channel", 0, "[midi] channel: found 0, allowed 1..16 (int)"),
        ("controls.tempo", 1, "[controls] tempo: unknown key, found 1; nearest is temperature (0.5..1.5)"),
        ("midy.channel", 1, "[midy]: unknown table; nearest is [midi]"),
        ("midi", 1, "[midi] : unknown key"),
    ],
)
def test_overrides_are_checked_like_the_file(file: Path, name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(overrides={name: value})


def test_the_users_file_is_read_and_one_in_the_working_folder_is_not(file: Path) -> None:
    Path("perceivers_live.toml").write_text("[osc]\nport = 2222")
    assert find_file() is None
    assert load() == Settings()
    user = config_folder()
    user.mkdir(parents=True)
    (user / "perceivers_live.toml").write_text("[osc]\nport = 1111")
    assert load().osc.port == 1111


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.builds(
        "[{}]\n{} = {}\n".format,
        st.sampled_from([*SCHEMA, "x"]),
        st.sampled_from([*CONTROLS, "channel", "port", "z"]),
        st.sampled_from(["1", "-1", "0.5", "inf", "'a'", "true", "{}", "1979-05-27", "[[1]]", '"""\na\n"""']),
    ).map(str.encode)
)
def test_any_file_content_is_loaded_or_refused_in_one_line(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        loaded = load(file)
    except ConfigError as error:
        assert str(error).isprintable()
    else:
        assert all(CONTROLS[name].check(value) == value for name, value in loaded.controls.items())


@pytest.mark.parametrize("name", ["page", "Page", "PAGE"])
def test_the_page_is_a_port_in_upper_or_lower_case(file: Path, name: str) -> None:
    file.write_text(f'[midi]\nin = "{name}"\n')
    assert load(file, {"midi.out": name}).midi == MidiSettings(input_port="page", output_port="page")


def test_the_page_cannot_be_a_port_while_it_is_switched_off(file: Path) -> None:
    message = refusal(file, '[page]\nenabled = false\n[midi]\nout = "Page"\n')
    assert message == "given.toml:4: [midi] out: page needs [page] enabled = true"
