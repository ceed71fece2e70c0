"""TODO package lotr_tui/bench/training."""
