"""Tempo and beats from a MIDI clock or from Ableton Link."""
