"""The table of the live controls. Configuration file, OSC, MIDI CC, command line, page and layouts are generated from it."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from perceivers_live.controls.control import Control

# Pairs of lower and upper limits. The lower one never exceeds the upper one: setting one beyond the other sets both.
LIMIT_PAIRS = (("register_low", "register_high"), ("listen_low", "listen_high"))


def partner_limit(name: str) -> str | None:
    """The other limit of the pair that ``name`` belongs to; None if it is not a limit."""
    return next((other for pair in LIMIT_PAIRS for other in pair if name in pair and other != name), None)


def _with_partner_help(control: Control) -> Control:
    other = partner_limit(control.name)
    return replace(control, help=f"{control.help} Setting it beyond {other} sets both.") if other else control


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        control.name: _with_partner_help(control)
        for control in (
            Control(
                "temperature",
                "float",
                1.0,
                0.5,
                1.5,
                help="Sampling temperature; 1: as trained, lower: less random.",
                group="randomness",
            ),
            Control(
                "min_p",
                "float",
                0.02,
                0.0,
                0.5,
                help="Min-p sampling: leaves out pitches and velocities less likely than this fraction of the likeliest. Higher: "
                "safer and plainer.",
                group="randomness",
            ),
            Control("variety", "float", 1.0, 0.0, 3.0, help="Plays the same keys less often; 0: as trained.", group="randomness"),
            Control(
                "density",
                "float",
                0.0,
                -1.0,
                1.0,
                help="How many notes per second: 0: as many as you, 1: twice as many (at most 20), -1: half. Lengths change in "
                "proportion. pace sets how strictly that is kept.",
                group="texture",
            ),
            Control(
                "pace",
                "float",
                0.5,
                0.0,
                2.0,
                help="How strictly the note rate that density sets is kept; 0: it may drift, 2: strictly. For more or fewer "
                "notes use density.",
                group="texture",
            ),
            Control(
                "dynamics",
                "float",
                0.0,
                -1.0,
                1.0,
                help="How hard the machine plays: 0: as you, 1: with 24 more velocity, -1: with 24 less; the model continues at "
                "that level. To balance instruments use loudness.",
                group="texture",
            ),
            Control("register_low", "int", 21, 0, 127, unit="MIDI note", help="Lowest note the machine plays.", group="texture"),
            Control(
                "register_high", "int", 108, 0, 127, unit="MIDI note", help="Highest note the machine plays.", group="texture"
            ),
            Control("max_polyphony", "int", 12, 1, 32, unit="notes", help="Most notes held at the same time.", group="texture"),
            Control(
                "mode",
                "choice",
                "respond",
                0,
                3,
                ("respond", "duet", "solo", "listen"),
                help="respond: replies to each phrase; duet: plays along; solo: plays continuously; listen: does not play.",
                group="turns",
            ),
            Control(
                "patience",
                "float",
                1.0,
                0.25,
                4.0,
                help="Scales the silence that ends your phrase, which depends on how fast you play; 0.5: half, 2: twice. It "
                "stays within phrase.min_silence_ms and phrase.max_silence_ms.",
                group="turns",
                affects="input",
            ),
            Control(
                "response_length",
                "float",
                1.0,
                0.1,
                4.0,
                unit="times your phrase",
                help="Length of a reply, from 2 s to 60 s. It ends at a plausible point within 20 % of it.",
                group="turns",
                affects="nothing",
            ),
            Control(
                "start_on",
                "choice",
                "now",
                0,
                2,
                ("now", "beat", "bar"),
                help="When the machine's turn begins, if there is a clock: now, on the next beat or on the next bar.",
                group="turns",
                affects="nothing",
            ),
            Control(
                "beats_per_bar",
                "int",
                4,
                1,
                16,
                unit="beats",
                help="Beats per bar of the clock.",
                group="turns",
                affects="nothing",
            ),
            Control(
                "pulse",
                "float",
                0.0,
                help="Quantizes notes to the clock's beat and to the subdivisions that you play; 0: off, 1: to within about "
                "10 ms.",
                group="timing",
            ),
            Control(
                "lookahead_ms",
                "int",
                400,
                50,
                2000,
                unit="ms",
                help="How far ahead the machine decides; your playing still changes what it decided.",
                group="timing",
                affects="nothing",
            ),
            Control(
                "input_offset_ms",
                "float",
                0.0,
                -200.0,
                200.0,
                unit="ms",
                help="Added to the times of the input; negative if your notes arrive late.",
                group="timing",
                affects="input",
            ),
            Control(
                "output_offset_ms",
                "float",
                0.0,
                -200.0,
                200.0,
                unit="ms",
                help="Added to the times of the output; negative sends notes earlier.",
                group="timing",
            ),
            Control("transpose", "int", 0, -24, 24, unit="semitones", help="Transposes the output.", group="sound"),
            Control(
                "loudness",
                "float",
                0.0,
                -1.0,
                1.0,
                help="Velocity curve of the output, to balance instruments; positive is louder. To play harder or softer use "
                "dynamics.",
                group="sound",
                affects="output",
            ),
            Control(
                "listen_low",
                "int",
                0,
                0,
                127,
                unit="MIDI note",
                help="Lowest key the machine listens to.",
                group="input",
                affects="input",
            ),
            Control(
                "listen_high",
                "int",
                127,
                0,
                127,
                unit="MIDI note",
                help="Highest key the machine listens to.",
                group="input",
                affects="input",
            ),
            Control(
                "seed",
                "int",
                -1,
                -1,
                2**31 - 1,
                help="Random seed; -1: a random one for each session. In mode respond, after a start or forget, the same phrase "
                "gets the same reply if its notes fall in the same steps of 10 ms, the controls are the same, and no decision is "
                "late.",
                group="randomness",
            ),
            Control("hold", "switch", False, help="While on, the machine does not play, whatever the mode.", group="turns"),
            Control("thru", "switch", False, help="Copies the input to the output.", group="sound", affects="output"),
        )
    }
)
