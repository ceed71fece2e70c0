"""The prompt input, its key bindings and the cleaning of pasted text."""
