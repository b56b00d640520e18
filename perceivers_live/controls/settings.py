"""The settings: their schema, strict parsing of ``perceivers_live.toml``, and the text of that file with the defaults.

Each dataclass below is one table of the file. Defaults, validation and the commented file are generated from their fields and
from the registry of live controls. An error in a file is reported in one line: place, what was found, what is allowed.
"""

import json
import re
import sys
from collections.abc import Container, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.errors import UserError
from engine.folders import config_folder
from engine.runtimes import NAMES as RUNTIMES
from engine.text import printable, shown
from perceivers_live.controls.catalogue import CONTROLS, LIMIT_PAIRS
from perceivers_live.controls.control import Control, ControlError, Kind, Value, nearest
from perceivers_live.controls.registry import with_partner

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "perceivers_live.toml"
PAGE = "page"  # name of the browser page as a port
MAX_BYTES = 1_000_000
MAX_DOTS = 256  # dots in a line: the TOML parser takes quadratic time in the number of parts of a key
_KINDS: dict[type, Kind] = {bool: "switch", int: "int", float: "float", str: "text"}


class ConfigError(UserError):
    """The settings are invalid; the message is one line."""


def _setting(
    default: Value, help: str, low: float = 0, high: float = 255, *, unit: str = "", choices: tuple[str, ...] = (), key: str = ""
) -> Any:
    """A dataclass field with its specification. ``key``: its name in the file; empty: the name of the field."""
    kind: Kind = "choice" if choices else _KINDS[type(default)]
    return field(default=default, metadata={"spec": Control(key, kind, default, low, high, choices, unit, help)})


@dataclass(frozen=True)
class MidiSettings:
    """MIDI ports and channels."""

    input_port: str = _setting(
        "",
        "Part of the input port's name, in upper or lower case; page: the browser page; empty: a virtual port named "
        "perceivers-live.",
        key="in",
    )
    output_port: str = _setting(
        "",
        "Part of the output port's name, in upper or lower case; page: the browser page; empty: a virtual port named "
        "perceivers-live.",
        key="out",
    )
    channel: int = _setting(1, "Output channel.", 1, 16)
    input_channel: int = _setting(0, "Input channel; 0: all.", 0, 16)
    takeover_key: int = _setting(
        -1, "A key that works as a button for takeover and is not music; -1: none.", -1, 127, unit="MIDI note"
    )
    invert_pedal: bool = _setting(False, "Inverts the sustain pedal of the input port, for pedals with reversed polarity.")


@dataclass(frozen=True)
class EngineSettings:
    """The model and its runtime."""

    remote: str = _setting(
        "",
        "Where the model runs: ssh://[user@]host[:port][/checkpoint], or a command that runs `perceivers-live serve`; "
        "empty: on this computer.",
        0,
        4096,
    )
    checkpoint: str = _setting("", "Folder of a checkpoint; empty: the bundled one.", 0, 4096)
    runtime: str = _setting("auto", "Runtime of the model; auto: the fastest that works on this computer.", choices=RUNTIMES)
    threads: int = _setting(0, "CPU threads for the model; 0: automatic.", 0, 64)


@dataclass(frozen=True)
class OscSettings:
    """Remote control by OSC over UDP."""

    enabled: bool = _setting(True, "Whether the OSC server runs.")
    host: str = _setting("127.0.0.1", "Address to listen on; if it is not loopback, the computers in allow have access.", 1, 255)
    allow: str = _setting(
        "",
        "Computers with access if host is not loopback: addresses and networks, separated by commas, such as 192.168.1.0/24.",
        0,
        1024,
    )
    port: int = _setting(9010, "UDP port to listen on.", 1, 65535)
    reply_port: int = _setting(0, "UDP port for replies, at the sender's address; 0: the port that the sender used.", 0, 65535)


@dataclass(frozen=True)
class PageSettings:
    """The page for the browser, and OSCQuery on the same port."""

    enabled: bool = _setting(True, "Whether the page is served.")
    host: str = _setting(
        "127.0.0.1",
        "Address to listen on; if it is not loopback, the computers in allow have access.",
        1,
        255,
    )
    allow: str = _setting(
        "",
        "Computers with access if host is not loopback: addresses and networks, separated by commas, such as 192.168.1.0/24.",
        0,
        1024,
    )
    port: int = _setting(9011, "TCP port to listen on; 0: a free one.", 0, 65535)


@dataclass(frozen=True)
class PhraseSettings:
    """When a phrase ends and the reply begins. This depends on how fast you play and on the control `patience`."""

    min_silence_ms: int = _setting(500, "Shortest silence that ends a phrase, from the last key press on.", 50, 10_000, unit="ms")
    max_silence_ms: int = _setting(
        2500,
        "Longest silence within a phrase, from the last key press on; time with keys held counts three quarters.",
        50,
        30_000,
        unit="ms",
    )
    min_notes: int = _setting(1, "Fewest notes of a phrase that gets a reply.", 1, 100, unit="notes")


@dataclass(frozen=True)
class ClockSettings:
    """External clock. The control `start_on` uses it. The machine does not play while a MIDI clock is stopped."""

    source: str = _setting(
        "none",
        "none; midi: MIDI clock from the input; link: Ableton Link, on the local network.",
        choices=("none", "midi", "link"),
    )


@dataclass(frozen=True)
class RecordingSettings:
    """Recording of each session to a MIDI file with two tracks, human and machine."""

    record: bool = _setting(True, "Whether to record.")
    folder: str = _setting("", "Folder of the recordings; empty: sessions, in the user's data folder.", 0, 4096)


@dataclass(frozen=True)
class Settings:
    """All settings. ``controls`` has the initial value of every live control."""

    midi: MidiSettings = field(default_factory=MidiSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    osc: OscSettings = field(default_factory=OscSettings)
    page: PageSettings = field(default_factory=PageSettings)
    phrase: PhraseSettings = field(default_factory=PhraseSettings)
    clock: ClockSettings = field(default_factory=ClockSettings)
    recording: RecordingSettings = field(default_factory=RecordingSettings)
    controls: Mapping[str, Value] = field(
        default_factory=lambda: MappingProxyType({name: c.default for name, c in CONTROLS.items()})
    )
    path: Path | None = None  # the file that was read; None: no file


TABLES: dict[str, Any] = {
    "midi": MidiSettings,
    "engine": EngineSettings,
    "osc": OscSettings,
    "page": PageSettings,
    "phrase": PhraseSettings,
    "clock": ClockSettings,
    "recording": RecordingSettings,
}
# Pairs of which the first must not exceed the second: (table, lower, upper). If only one of two controls is given, the other is
# adjusted to it, as in ``Controls.set``.
_LIMIT_PAIRS = (("phrase", "min_silence_ms", "max_silence_ms"), *(("controls", low, high) for low, high in LIMIT_PAIRS))


def _spec(item: Field[Any]) -> Control:
    spec: Control = item.metadata["spec"]
    return spec if spec.name else replace(spec, name=item.name)


SCHEMA: Mapping[str, Mapping[str, Control]] = {
    **{name: {spec.name: spec for spec in map(_spec, fields(table))} for name, table in TABLES.items()},
    "controls": CONTROLS,
}


def load(path: str | Path | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Reads the settings.

    Args:
        path: the file; None: ``perceivers_live.toml`` in the user's settings folder, or the defaults if it does not exist.
        overrides: options of the command line, such as ``{"midi.in": "Piano", "controls.temperature": 0.9}``; a value of None is
            ignored.

    Raises:
        ConfigError: the file is missing, unreadable, over 1 MB, not UTF-8 or not TOML; unknown table or key; a value of the wrong
            type or out of range (values are not clamped); a lower limit above the upper one, if both are given; the port "page"
            while the page is switched off.
    """
    source = Path(path) if path is not None else find_file()
    text = "" if source is None else read_text(source)
    values: dict[str, dict[str, Any]] = {
        table: {key: spec.default for key, spec in specs.items()} for table, specs in SCHEMA.items()
    }
    document = {} if source is None else parse_toml(text, source)
    for table, entries in document.items():
        if table not in SCHEMA or not isinstance(entries, dict):
            raise ConfigError(_where(source, text, table) + _not_a_table(table, entries))
        for key, value in entries.items():
            try:
                values[table][key] = _checked(table, key, value)
            except ConfigError as error:
                raise ConfigError(f"{_where(source, text, table, key)}{error}") from None
    _adjust_partners(values["controls"], document.get("controls", {}))
    for name, given in (overrides or {}).items():
        table, _, key = name.partition(".")
        if given is not None:
            values.setdefault(table, {})[key] = _checked(table, key, given)
    overridden = {name for name, given in (overrides or {}).items() if given is not None}
    _adjust_partners(values["controls"], {name.removeprefix("controls.") for name in overridden})
    for table, low, high in _LIMIT_PAIRS:
        if values[table][low] > values[table][high]:
            found, limit = values[table][low], values[table][high]
            raise ConfigError(
                f"{_where(source, text, table, low)}[{table}] {low}: found {found}, allowed up to {high}, which is {limit}"
            )
    for key in ("in", "out"):
        if values["midi"][key].lower() == PAGE:
            values["midi"][key] = PAGE
            if not values["page"]["enabled"]:
                raise ConfigError(f"{_where(source, text, 'midi', key)}[midi] {key}: {PAGE} needs [page] enabled = true")
    tables = {name: cls(**{item.name: values[name][_spec(item).name] for item in fields(cls)}) for name, cls in TABLES.items()}
    return Settings(**tables, controls=MappingProxyType(values["controls"]), path=source)


def find_file() -> Path | None:
    """The default settings file, in the user's settings folder; None if it does not exist.

    A file in the working folder is not read: that of the checkout must not replace the user's settings.
    """
    path = config_folder() / FILE_NAME
    return path if path.is_file() else None


def default_toml() -> str:
    """The text of ``perceivers_live.toml``: each setting with its default, meaning and range."""
    lines = [
        "# All settings of perceivers-live with their defaults. Options on the command line override this file.",
        f"# perceivers-live reads --config FILE, or {FILE_NAME} in the user's settings folder.",
    ]
    about = {
        **{name: cls.__doc__ for name, cls in TABLES.items()},
        "controls": "Initial values of the live controls, which OSC, MIDI and the page can change.",
    }
    for table, specs in SCHEMA.items():
        lines += ["", f"# {about[table]}", f"[{table}]"]
        for key, spec in specs.items():
            lines += [f"# {spec.help} ({spec.allowed})", f"{key} = {json.dumps(spec.default, ensure_ascii=False)}"]
    return "\n".join(lines) + "\n"


def settings_toml(settings: Settings) -> str:
    """The settings as the text of a settings file, without comments."""
    lines = [f"# {settings.path or f'defaults: there is no {config_folder() / FILE_NAME}'}"]
    for table, specs in SCHEMA.items():
        held = getattr(settings, table)
        values = held if table == "controls" else {_spec(item).name: getattr(held, item.name) for item in fields(held)}
        lines += ["", f"[{table}]", *(f"{key} = {json.dumps(values[key], ensure_ascii=False)}" for key in specs)]
    return "\n".join(lines) + "\n"


def read_text(path: Path) -> str:
    """The text of a file written by the user. Raises ConfigError: unreadable, over 1 MB or not UTF-8."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{printable(path)}: cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{printable(path)}: larger than 1 MB, so not a settings file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{printable(path)}:{line}: not UTF-8 text: found byte 0x{content[error.start]:02x}") from None


def parse_toml(text: str, source: Path) -> dict[str, Any]:
    """Parses ``text``, read from ``source``. Raises ConfigError: invalid TOML, or more than ``MAX_DOTS`` dots in a line."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS:
            raise ConfigError(f"{printable(source)}:{number}: found {line.count('.')} dots in a line, allowed {MAX_DOTS}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{printable(source)}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # the parser states the place, except for an integer of thousands of digits
        reason, _, place = str(error).partition(" (at ")
        at = re.match(r"line (\d+)", place)
        line = at[1] if at else str(text.rstrip().count("\n") + 1) if place else ""
        raise ConfigError(f"{printable(source)}:{line and f'{line}:'} not valid TOML: {printable(reason)}") from None


def _checked(table: str, key: str, value: object) -> Value:
    """``value`` if it is valid for ``[table] key``. Raises ConfigError, without the place in the file."""
    if table not in SCHEMA:
        raise ConfigError(_not_a_table(table, {}))
    if key not in SCHEMA[table]:
        close = SCHEMA[table][nearest(key, SCHEMA[table])]
        raise ConfigError(
            f"[{table}] {printable(key)}: unknown key, found {shown(value)}; nearest is {close.name} ({close.allowed})"
        )
    try:
        return SCHEMA[table][key].check(value)
    except ControlError as error:
        raise ConfigError(f"[{table}] {error}") from None


def _adjust_partners(controls: dict[str, Value], given: Container[str]) -> None:
    """Adjusts limits that are not given to their partners that are."""
    for pair in LIMIT_PAIRS:
        named = [name for name in pair if name in given]
        if len(named) == 1:
            controls |= with_partner(controls, named[0], controls[named[0]])


def _not_a_table(name: str, found: object) -> str:
    if name in SCHEMA:
        return f"{name}: found {shown(found)}, allowed only as the table [{name}]"
    if isinstance(found, dict):
        return f"[{printable(name)}]: unknown table; nearest is [{nearest(name, SCHEMA)}]"
    tables_of = {key: table for table, specs in reversed(list(SCHEMA.items())) for key in specs}  # the first table wins
    close = nearest(name, tables_of)
    allowed = SCHEMA[tables_of[close]][close].allowed
    return f"{printable(name)}: found {shown(found)} outside the tables; nearest is {close} in [{tables_of[close]}] ({allowed})"


def _where(source: Path | None, text: str, table: str, key: str | None = None) -> str:
    """``file:line: `` of a key or table, the start of a message; without the line if ``_line`` does not find it."""
    if source is None:
        return ""
    line = _line(text, table, key) or (_line(text, "", table) if key is None else None)
    return f"{printable(source)}:{line}: " if line else f"{printable(source)}: "


def _line(text: str, table: str, key: str | None) -> int | None:
    """The line of ``[table]``, or of ``key = `` below it ("": before all tables); None if it is not found.

    The TOML parser does not provide lines. Dotted and quoted keys are not found.
    """
    current = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[\[?\s*([\w-]*)", line):
            current = header[1]
            if key is None and current == table:
                return number
        elif key is not None and current == table and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return None
