"""The command line: one thin function per command, and what plain commands print."""
