"""`lotr-tui fetch`: downloads of a model and of texts."""
