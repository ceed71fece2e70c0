"""The conversation with a model: its tree of replies, generation, autosave and restoring."""
