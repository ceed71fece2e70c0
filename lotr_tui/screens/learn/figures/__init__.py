"""Figures of the chapters. A module is imported when a chapter of it is opened."""
