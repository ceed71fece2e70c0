"""TODO package lotr_tui/screens/comparison."""
