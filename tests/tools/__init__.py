"""Commands that make the pictures, the recording and the models that are part of the repository."""
