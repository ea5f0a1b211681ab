"""The wheel: what people said of the deployed model becomes the next one, and a gate says whether that is better."""
