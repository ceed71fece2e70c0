"""`lotr-tui eval`: one model with its baselines, or several models in one table."""
