"""Line charts drawn with braille dots: plotting functions, canvas, axes and the perplexity chart."""
