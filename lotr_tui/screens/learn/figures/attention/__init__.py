"""Figure of the last chapter: attention on a typed line, and the same line in models from counts to a real one."""
