"""The plan, sounded on time; every note-on gets its note-off."""
