"""The app in a browser: textual-serve with a token in front of it."""
