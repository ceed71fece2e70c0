"""The app in a browser: access, limits and the page around textual-serve, which shows the screen of a process."""
