"""Workarounds for defects of Textual 8.2.8: one file per defect, combined in classes for apps, screens and lists."""
