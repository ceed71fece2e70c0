"""The app in a browser, by textual-serve, and the API for other programs, both behind a token."""
