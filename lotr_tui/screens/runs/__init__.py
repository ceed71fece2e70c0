"""Screen with the runs, and functions that open a run from any screen."""
