"""Every target by its name."""

from fuzz import files, live, page

TARGETS = live.TARGETS | page.TARGETS | files.TARGETS
