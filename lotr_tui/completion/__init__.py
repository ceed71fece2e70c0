"""Completion of command lines in bash, zsh and fish, by Typer: values of options, and scripts for the shells."""

COMPLETE_VARIABLE = "_LOTR_TUI_COMPLETE"
"""Variable with which a shell asks for completions, where the program has no arguments."""
