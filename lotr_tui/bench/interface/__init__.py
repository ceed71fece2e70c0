"""TODO package lotr_tui/bench/interface."""
