"""TODO package lotr_tui/screens/text."""
