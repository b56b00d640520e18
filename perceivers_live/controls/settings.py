"""The settings: their schema, the strict reading of `perceivers_live.toml`, and that file's own text.

Each dataclass below is one table of the file. Defaults, validation and the commented file all come from these fields and from the
registry of live controls, so that nothing is said twice. Whatever is wrong in a file is refused in one line: where, what was
found, what is allowed.
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
from perceivers_live.controls.registry import (
    CONTROLS,
    ORDERED,
    Control,
    ControlError,
    Kind,
    Value,
    in_order,
    nearest,
    printable,
    shown,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "perceivers_live.toml"
MAX_BYTES = 1_000_000
MAX_DOTS = 256  # in a line: the TOML reader's time grows with the square of a key's parts
_KINDS: dict[type, Kind] = {bool: "switch", int: "int", float: "float", str: "text"}


class ConfigError(UserError):
    """The settings cannot be used; the message is one line."""


def _setting(
    default: Value, help: str, low: float = 0, high: float = 255, *, unit: str = "", choices: tuple[str, ...] = (), key: str = ""
) -> Any:
    """A dataclass field that carries its specification. `key`: its name in the file, where that is not the field's own."""
    kind: Kind = "choice" if choices else _KINDS[type(default)]
    return field(default=default, metadata={"spec": Control(key, kind, default, low, high, choices, unit, help)})


@dataclass(frozen=True)
class MidiSettings:
    """MIDI ports and channels."""

    input_port: str = _setting(
        "", "Part of the input port's name, in any case; page: the page; empty: a virtual port named perceivers-live.", key="in"
    )
    output_port: str = _setting(
        "", "Part of the output port's name, in any case; page: the page; empty: a virtual port named perceivers-live.", key="out"
    )
    channel: int = _setting(1, "Channel that is played on.", 1, 16)
    input_channel: int = _setting(0, "Channel that is listened to; 0: all.", 0, 16)
    takeover_key: int = _setting(
        -1, "A key that hands over to the machine instead of being heard; -1: none.", -1, 127, unit="MIDI note"
    )
    invert_pedal: bool = _setting(False, "For a sustain pedal of the other polarity: what it sends as up is down.")


@dataclass(frozen=True)
class EngineSettings:
    """The model and what runs it."""

    remote: str = _setting(
        "",
        "Where the model computes: ssh://[user@]host[:port][/checkpoint], or a command that runs `perceivers-live serve`; "
        "empty: here.",
        0,
        4096,
    )
    checkpoint: str = _setting("", "Folder of a checkpoint; empty: the bundled one.", 0, 4096)
    runtime: str = _setting("auto", "What computes the model; auto takes the best that works here.", choices=RUNTIMES)
    threads: int = _setting(0, "CPU threads for the model; 0: automatic.", 0, 64)


@dataclass(frozen=True)
class OscSettings:
    """Remote control by OSC over UDP."""

    enabled: bool = _setting(True, "Whether to listen at all.")
    host: str = _setting(
        "127.0.0.1", "Address to listen on; anything but loopback lets those other machines steer that allow names.", 1, 255
    )
    allow: str = _setting(
        "",
        "Who may steer where host is not loopback: addresses and networks, separated by commas, such as 192.168.1.0/24.",
        0,
        1024,
    )
    port: int = _setting(9010, "UDP port to listen on.", 1, 65535)
    reply_port: int = _setting(0, "UDP port that replies go to, at the sender's address; 0: the sender's own port.", 0, 65535)


@dataclass(frozen=True)
class PageSettings:
    """The page in the browser, and OSCQuery on the same port, for programs that build their surface from it."""

    enabled: bool = _setting(True, "Whether it is served.")
    host: str = _setting(
        "127.0.0.1",
        "Address to listen on; anything but loopback lets those other machines play and steer that allow names.",
        1,
        255,
    )
    allow: str = _setting(
        "",
        "Who may use it where host is not loopback: addresses and networks, separated by commas, such as 192.168.1.0/24.",
        0,
        1024,
    )
    port: int = _setting(9011, "TCP port to listen on; 0: any free.", 0, 65535)


@dataclass(frozen=True)
class PhraseSettings:
    """When a phrase counts as ended, and the reply begins: the pace of the playing decides, and `patience` among the controls."""

    min_silence_ms: int = _setting(500, "Never reply sooner than this after the last note.", 50, 10_000, unit="ms")
    max_silence_ms: int = _setting(2500, "Always reply once it has been silent for this long.", 50, 30_000, unit="ms")
    min_notes: int = _setting(1, "Fewest notes that are worth a reply.", 1, 100, unit="notes")


@dataclass(frozen=True)
class ClockSettings:
    """Musical time from outside. `start_on` among the controls says what it is used for; a stopped MIDI clock means silence."""

    source: str = _setting(
        "none", "none; midi: the input's MIDI clock; link: Ableton Link, on the local network.", choices=("none", "midi", "link")
    )


@dataclass(frozen=True)
class RecordingSettings:
    """Every session as a MIDI file of two tracks, the human's and the machine's."""

    record: bool = _setting(True, "Whether to record.")
    folder: str = _setting("", "Where; empty: sessions, in the user's data folder.", 0, 4096)


@dataclass(frozen=True)
class Settings:
    """Everything that can be configured. `controls` holds the starting value of every live control."""

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
    path: Path | None = None  # the file that was read; None: only defaults and overrides


TABLES: dict[str, Any] = {
    "midi": MidiSettings,
    "engine": EngineSettings,
    "osc": OscSettings,
    "page": PageSettings,
    "phrase": PhraseSettings,
    "clock": ClockSettings,
    "recording": RecordingSettings,
}
# Pairs of which the first may not exceed the second: (table, lower, upper). If only one of two controls is given, it moves the
# other along, as it does live.
_ORDERED = (("phrase", "min_silence_ms", "max_silence_ms"), *(("controls", low, high) for low, high in ORDERED))


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
        path: the file; None takes `perceivers_live.toml` in the user's configuration folder, or the defaults without it.
        overrides: what the command line says, such as `{"midi.in": "Piano", "controls.temperature": 0.9}`; None as a value:
            not given.

    Raises:
        ConfigError: a file that is missing, unreadable, over 1 MB, not UTF-8 or not TOML; an unknown table or key; a value of the
            wrong type or out of range (nothing is clamped); a lower limit above its upper one, where both are given.
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
    _move_along(values["controls"], document.get("controls", {}))
    for name, given in (overrides or {}).items():
        table, _, key = name.partition(".")
        if given is not None:
            values.setdefault(table, {})[key] = _checked(table, key, given)
    demanded = {name for name, given in (overrides or {}).items() if given is not None}
    _move_along(values["controls"], {name.removeprefix("controls.") for name in demanded})
    for table, low, high in _ORDERED:
        if values[table][low] > values[table][high]:
            found, limit = values[table][low], values[table][high]
            raise ConfigError(
                f"{_where(source, text, table, low)}[{table}] {low}: found {found}, allowed up to {high}, which is {limit}"
            )
    tables = {name: cls(**{item.name: values[name][_spec(item).name] for item in fields(cls)}) for name, cls in TABLES.items()}
    return Settings(**tables, controls=MappingProxyType(values["controls"]), path=source)


def find_file() -> Path | None:
    """The settings file that is read when none is named: the one in the user's configuration folder, None without it.

    A file in the working folder is never read by itself: the checkout has one, which must not hide the user's settings.
    """
    path = config_folder() / FILE_NAME
    return path if path.is_file() else None


def default_toml() -> str:
    """The text of `perceivers_live.toml`: every setting with its default, its meaning and its range."""
    lines = [
        "# All settings of perceivers-live with their defaults. Options on the command line override this file.",
        f"# perceivers-live reads --config FILE, or {FILE_NAME} in the user's configuration folder.",
    ]
    about = {
        **{name: cls.__doc__ for name, cls in TABLES.items()},
        "controls": "Where the live controls start; OSC and MIDI move them.",
    }
    for table, specs in SCHEMA.items():
        lines += ["", f"# {about[table]}", f"[{table}]"]
        for key, spec in specs.items():
            lines += [f"# {spec.help} ({spec.allowed})", f"{key} = {json.dumps(spec.default, ensure_ascii=False)}"]
    return "\n".join(lines) + "\n"


def in_force(settings: Settings) -> str:
    """Settings as a file says them."""
    lines = [f"# {settings.path or 'defaults: no settings file was found'}"]
    for table, specs in SCHEMA.items():
        held = getattr(settings, table)
        values = held if table == "controls" else {_spec(item).name: getattr(held, item.name) for item in fields(held)}
        lines += ["", f"[{table}]", *(f"{key} = {json.dumps(values[key], ensure_ascii=False)}" for key in specs)]
    return "\n".join(lines) + "\n"


def read_text(path: Path) -> str:
    """The text of a file that a user writes. Raises ConfigError: unreadable, over 1 MB or not UTF-8."""
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
    """The document in `text`, which is from `source`. Raises ConfigError: not valid TOML, or a key of more parts than any."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS:
            raise ConfigError(f"{printable(source)}:{number}: found {line.count('.')} dots in a line, allowed {MAX_DOTS}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{printable(source)}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # from the parser, with the place; or for an integer of thousands of digits, without
        reason, _, place = str(error).partition(" (at ")
        at = re.match(r"line (\d+)", place)
        line = at[1] if at else str(text.rstrip().count("\n") + 1) if place else ""
        raise ConfigError(f"{printable(source)}:{line and f'{line}:'} not valid TOML: {printable(reason)}") from None


def _checked(table: str, key: str, value: object) -> Value:
    """`value` if the schema allows it under `[table] key`. Raises ConfigError, without the place."""
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


def _move_along(controls: dict[str, Value], given: Container[str]) -> None:
    """A limit of which only the partner is given goes along with that."""
    for pair in ORDERED:
        named = [name for name in pair if name in given]
        if len(named) == 1:
            controls |= in_order(controls, named[0], controls[named[0]])


def _not_a_table(name: str, found: object) -> str:
    if name in SCHEMA:
        return f"{name}: found {shown(found)}, allowed only as the table [{name}]"
    if isinstance(found, dict):
        return f"[{printable(name)}]: unknown table; nearest is [{nearest(name, SCHEMA)}]"
    homes = {key: table for table, specs in reversed(list(SCHEMA.items())) for key in specs}  # of two, the first
    close = nearest(name, homes)
    allowed = SCHEMA[homes[close]][close].allowed
    return f"{printable(name)}: found {shown(found)} outside the tables; nearest is {close} in [{homes[close]}] ({allowed})"


def _where(source: Path | None, text: str, table: str, key: str | None = None) -> str:
    """`file:line: ` of a key, or of a table, as the start of a message; without the line where a quick look does not find it."""
    if source is None:
        return ""
    line = _line(text, table, key) or (_line(text, "", table) if key is None else None)
    return f"{printable(source)}:{line}: " if line else f"{printable(source)}: "


def _line(text: str, table: str, key: str | None) -> int | None:
    """The line of `[table]`, or of `key = ` below it ("": above all tables).

    The TOML reader does not say; dotted and quoted keys are not found.
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
