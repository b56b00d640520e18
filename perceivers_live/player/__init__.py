"""The plan, its output on time, and the bookkeeping of sounding notes: each note-on gets a note-off."""
