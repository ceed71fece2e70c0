"""Files on disk: atomic writes, locks, JSON lines, rotating logs, safetensors headers and validation."""
