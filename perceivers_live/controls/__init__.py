"""The registry of controls, and what sets them without a network: the settings, and bound MIDI controllers."""
