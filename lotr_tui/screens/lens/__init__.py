"""Lens screen: a text with each word shaded by how unexpected it was to the model."""
