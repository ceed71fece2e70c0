"""The terminal of lotr-tui: commands, screens and widgets over the engine."""

import time

STARTED = time.perf_counter()
"""When this process began to load lotr-tui."""
