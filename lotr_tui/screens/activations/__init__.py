"""TODO package lotr_tui/screens/activations."""
