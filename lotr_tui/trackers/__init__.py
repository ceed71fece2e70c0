"""Experiment trackers, which show trainings: TensorBoard, Weights & Biases, MLflow and trackio."""
