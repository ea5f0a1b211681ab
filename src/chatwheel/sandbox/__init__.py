"""Python code of strangers, models among them, in processes that can do nothing but compute and speak."""
