"""Inspectors of a model that reads or writes a text; each is a screen that a session opens."""
