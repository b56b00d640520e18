"""What to do next, event by event."""
