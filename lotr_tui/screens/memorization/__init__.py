"""Memorization screen: passages of a text that are copied from the training text."""
