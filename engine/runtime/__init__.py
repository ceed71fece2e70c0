"""Threads, processes, memory and hardware that trainings and generations run on."""

import os

# Threads of OpenMP, which reads this when PyTorch is imported, sleep sooner while they wait for each other. Beside one
# busy process, training takes 4 times as long without this limit, and 2 times with it.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
