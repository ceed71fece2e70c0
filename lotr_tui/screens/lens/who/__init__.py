"""Part of the lens that shows which speaker of the cast a line belongs to, and by which words."""
