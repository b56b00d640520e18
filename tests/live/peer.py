"""A keyboard and a synthesizer as another process: python peer.py NAME

Reads raw MIDI messages from standard input, one a line as hex bytes, and sends them on the JACK port NAME-keys; prints every
message that arrives on the port NAME-synth likewise, after the monotonic time in seconds. Ends with its standard input.
"""

from __future__ import annotations

import sys
import time

import rtmidi

name = sys.argv[1]
keys, synth = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, f"{name}-keys"), rtmidi.MidiIn(rtmidi.API_UNIX_JACK, f"{name}-synth")
keys.open_virtual_port("port")


def arrived(event: tuple[list[int], float], _: object) -> None:
    print(f"{time.perf_counter():.6f} {bytes(event[0]).hex(' ')}", flush=True)


synth.set_callback(arrived)
synth.open_virtual_port("port")
print("ready", flush=True)
for line in sys.stdin:
    keys.send_message(list(bytes.fromhex(line)))
synth.cancel_callback()
