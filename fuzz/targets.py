"""All targets by name."""

from fuzz import files, live, page

TARGETS = live.TARGETS | page.TARGETS | files.TARGETS
