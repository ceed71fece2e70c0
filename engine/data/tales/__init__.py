"""Pre-training corpus: old fantasy and adventure books from Project Gutenberg."""
