"""Formats of the numbers in messages and remedies."""


def format_perplexity(perplexity: float) -> str:
    """Return a perplexity with one decimal, or with four digits if it is large."""
    return f"{perplexity:.1f}" if perplexity < 10_000 else f"{perplexity:.4g}"


def format_lr(lr: float) -> str:
    """Return a learning rate with two digits, as `--set lr=` takes it."""
    return f"{lr:.2g}"


def format_megabytes(num_bytes: float) -> str:
    """Return a size in MB with one decimal, or without if it has three digits."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes < 99.95e6 else f"{num_bytes / 1e6:,.0f} MB"
