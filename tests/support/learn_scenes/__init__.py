"""Scenes for snapshots of the class, one module for each chapter."""
