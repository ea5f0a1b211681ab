"""The `chatwheel` command: one file a verb."""
