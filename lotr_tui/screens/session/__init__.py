"""The session screen: a conversation with a model, the next-word probabilities and the sampling controls."""
