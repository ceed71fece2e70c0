"""Inspectors: what a model makes of a text, and what it writes, each a screen that a session opens."""
