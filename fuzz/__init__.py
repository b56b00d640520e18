"""Fuzz targets for every untrusted input: see ``python -m fuzz --help``.

This module imports nothing, because Atheris must be imported first.
"""
