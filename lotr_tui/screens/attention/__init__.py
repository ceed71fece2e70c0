"""Attention screen: attention weights and layer predictions of a Transformer for each token of a text."""
