"""Every target by its name."""

from fuzz import files, live

TARGETS = live.TARGETS | files.TARGETS
