"""The terminal of lotr-tui: commands, screens and widgets over the engine."""

import gc
import os
import time

# Modules being loaded make many objects and no garbage; looking for it every 700 objects, as Python does, takes a
# quarter of the time to the first paint.
gc.set_threshold(50_000, 20, 20)

# numpy's BLAS, not loaded yet, would share each product of a word's few numbers with a thread a core, and wait for all
# of them. Where other programs use the cores too, one that is not running holds up the key that is being typed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Textual paints 60 times a second, and lets up to two of these moments pass before what follows a first change, as the
# bars follow the slider, is seen: half as long then. Words come by timers of their own, so no more is written for it.
os.environ.setdefault("TEXTUAL_FPS", "120")

STARTED = time.perf_counter()
"""When this process began to load lotr-tui."""
