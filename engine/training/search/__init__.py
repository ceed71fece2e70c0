"""Hyperparameter search: ranges of settings, the study of optuna, trials in worker processes, and their records."""
