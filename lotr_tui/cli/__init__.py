"""TODO package lotr_tui/cli."""
