"""Small language models: data, training, evaluation and sampling. Knows no terminal."""
