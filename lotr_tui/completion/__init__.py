"""Completion of command lines in bash, zsh and fish.

A shell runs this package at every key press, so its modules import neither Typer nor the models, and use named tuples,
since `dataclasses` takes as long to import as Python to start.
"""

COMPLETE = "__complete"
"""Hidden command that the scripts in `scripts/` run at a key press."""
