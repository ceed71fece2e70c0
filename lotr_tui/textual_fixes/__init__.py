"""TODO package lotr_tui/textual_fixes."""
