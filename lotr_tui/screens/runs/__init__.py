"""TODO package lotr_tui/screens/runs."""
