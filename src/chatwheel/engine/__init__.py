"""How a model speaks: requests in, tokens out, many at once."""
