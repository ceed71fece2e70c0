"""Commands about corpora and tokens: `data info`, `data speech` and `tokenize`."""
