"""Records every session as a MIDI file, even if the program is killed."""
