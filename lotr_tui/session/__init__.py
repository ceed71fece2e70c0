"""Session models without widgets: the conversation, its saved file, prompt history, settings and exports."""
