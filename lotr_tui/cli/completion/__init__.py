"""Command that prints the completion for a shell, and the description of the command line that completion reads."""
