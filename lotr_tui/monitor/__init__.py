"""TODO package lotr_tui/monitor."""
