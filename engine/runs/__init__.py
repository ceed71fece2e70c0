"""Run directories: creating, recording, following, listing, loading, combining and deleting trained models."""
