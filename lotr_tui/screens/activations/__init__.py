"""Activations screen: gates, cells and hidden values of an LSTM for each token of a text."""
