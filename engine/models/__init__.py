"""Language models: the protocol they implement, LSTMs in PyTorch and numpy, n-grams, caches and mixtures."""
