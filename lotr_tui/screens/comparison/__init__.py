"""Screens that compare generated texts in columns: the temperature ladder and models side by side."""
