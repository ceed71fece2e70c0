"""TODO package lotr_tui/session."""
