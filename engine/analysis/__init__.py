"""Analysis of trained models and their output: perplexity, token scores, copied passages and LSTM activations."""
