"""Files on disk: folders, bounded reads, JSON, atomic writes, locks, appended lines, and tensors."""
