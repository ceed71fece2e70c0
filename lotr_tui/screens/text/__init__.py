"""Widgets and layout shared by the screens that analyse a text: lens, memorization and activations."""
