"""Corpora: reading, splitting, tokenizing and encoding of texts, also of texts larger than memory."""
