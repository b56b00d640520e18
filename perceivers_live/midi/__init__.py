"""The MIDI system: ports that come and go, echoes of our own notes, and a watchdog that outlives the daemon."""
