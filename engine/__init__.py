"""Small language models: data, models, training, generation, analysis and runs. Independent of the terminal."""
