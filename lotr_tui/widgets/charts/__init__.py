"""TODO package lotr_tui/widgets/charts."""
