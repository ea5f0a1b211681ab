"""How a model learns: one loop, and a file a stage."""
