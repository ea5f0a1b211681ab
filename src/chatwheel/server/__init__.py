"""The web server: the OpenAI-compatible API, the page and its own resources."""
