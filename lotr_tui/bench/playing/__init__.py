"""TODO package lotr_tui/bench/playing."""
