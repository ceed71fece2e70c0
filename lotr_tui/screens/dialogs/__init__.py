"""Dialogs and small screens that several screens open."""
