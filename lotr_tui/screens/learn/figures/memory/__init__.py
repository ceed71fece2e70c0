"""Figure of the chapter on memory: one unit of an LSTM step by step, and what a reset of the state changes."""
