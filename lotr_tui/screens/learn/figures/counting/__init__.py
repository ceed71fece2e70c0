"""Figure of the chapter on counts: next words by order, and the back-off of Kneser-Ney."""
