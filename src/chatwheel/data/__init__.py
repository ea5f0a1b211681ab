"""What a model learns from: records, importers, cleaning, splits and mixtures."""
