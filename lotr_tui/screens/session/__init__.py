"""TODO package lotr_tui/screens/session."""
