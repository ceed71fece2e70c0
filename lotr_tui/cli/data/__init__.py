"""Commands about corpora and tokens: `data info`, `data fetch` and `tokenize`."""
