"""Figure of the chapter on perplexity: a line scored word by word, the held-out text, and the notebook's window."""
