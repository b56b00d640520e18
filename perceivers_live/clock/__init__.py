"""Musical time: from a MIDI clock, or from Ableton Link."""
