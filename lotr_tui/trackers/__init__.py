"""Experiment trackers, which show trainings: TensorBoard and Weights & Biases."""
