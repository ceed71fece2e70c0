"""Training of LSTM language models: the loop, its state and checkpoints, distributed runs and ablations."""
