"""Causal language models by others: from Hugging Face folders, the Hugging Face Hub, and GGUF files."""
