"""The conversation of the session: transcript, cursor, token inspector and search."""
