"""Hyperparameter search within a budget; its trials are ordinary runs."""
