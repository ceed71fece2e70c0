"""Checks of this machine for `lotr-tui doctor`."""
