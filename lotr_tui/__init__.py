"""Terminal app and command line of lotr-tui, on top of the engine."""

import gc
import os
import time

# Imports create no garbage; collecting at Python's threshold of 700 objects takes a quarter of the time to the first
# paint.
gc.set_threshold(50_000, 20, 20)
# BLAS, which is not loaded yet, would split the small products of one token over threads and wait for all of them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A change that follows another one, such as the bars after the slider, appears two frames later.
os.environ.setdefault("TEXTUAL_FPS", "120")

STARTED = time.perf_counter()  # when the import of lotr-tui began
