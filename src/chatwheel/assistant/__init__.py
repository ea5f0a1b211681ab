"""One answer, composed of the engine and what is around it."""
