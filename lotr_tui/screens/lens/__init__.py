"""TODO package lotr_tui/screens/lens."""
