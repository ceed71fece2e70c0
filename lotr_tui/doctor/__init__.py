"""Checks of this machine for `lotr-tui doctor`: functions from an `Environment` to findings."""
