"""The command `search`: its options, its lines and tables, and the command that trains the best settings."""
