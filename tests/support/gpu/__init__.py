"""Checks of everything that needs a GPU, which `tests/gpu.sh` runs."""
