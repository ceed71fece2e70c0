"""TODO package lotr_tui/screens/memorization."""
