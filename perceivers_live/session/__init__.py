"""A live session: input routing, output, commands, saved states and the threads; and offline rendering."""
