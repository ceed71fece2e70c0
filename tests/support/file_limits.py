"""Limit on the size of files, which makes writes fail as on a full disk."""

import resource
from contextlib import contextmanager


@contextmanager
def no_file_longer_than(size):
    """Let no file of this process grow beyond `size` bytes. Writes beyond that fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
