"""Side by side with peers: the same model, data and precision, interleaved runs, medians, ratios."""
