"""Measurements of training: speed, quality, the dashboard, several processes, and growth with the data."""
