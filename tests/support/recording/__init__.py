"""Recording of a session: a real terminal session as an animated picture for the README."""
