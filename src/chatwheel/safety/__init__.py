"""What a model must not say: OpenAI's categories, rules, a trained classifier, and the moderation that joins them."""
