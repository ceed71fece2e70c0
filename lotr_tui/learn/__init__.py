"""The class without its screens: texts of the chapters, progress, corpora and models, and what the figures compute."""
