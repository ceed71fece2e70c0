"""Terminal app and command line of lotr-tui, on top of the engine."""

import gc
import os
import time

# Imports create many objects and no garbage; collecting at Python's default threshold of 700 objects takes a quarter
# of the time to the first paint.
gc.set_threshold(50_000, 20, 20)

# numpy's BLAS, which is not loaded yet, would split the small products of one token over a thread per core and wait for
# all of them; on a busy machine this delays the keys that are typed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Textual paints 60 times per second, and a change that follows another one, such as the bars after the slider, may
# appear two frames later. A higher rate halves this delay.
os.environ.setdefault("TEXTUAL_FPS", "120")

STARTED = time.perf_counter()
"""Value of `time.perf_counter` when the import of lotr-tui began."""
