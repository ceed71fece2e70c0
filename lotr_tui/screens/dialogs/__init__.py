"""TODO package lotr_tui/screens/dialogs."""
