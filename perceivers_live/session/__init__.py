"""A performance: threads, input, commands, saved states; and the same offline."""
