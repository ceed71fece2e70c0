"""The terminal of lotr-tui: commands, screens and widgets over the engine."""

import gc
import time

# Modules being loaded make many objects and no garbage; looking for it every 700 objects, as Python does, takes a
# quarter of the time to the first paint.
gc.set_threshold(50_000, 20, 20)

STARTED = time.perf_counter()
"""When this process began to load lotr-tui."""
