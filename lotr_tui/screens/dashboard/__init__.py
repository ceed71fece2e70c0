"""TODO package lotr_tui/screens/dashboard."""
