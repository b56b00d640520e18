"""What comes in from outside, fed with whatever bytes: see ``python -m fuzz --help``.

Nothing is imported here: Atheris has to be there first.
"""
