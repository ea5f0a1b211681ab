"""What a model is: configuration, transformer, tokenizer, chat template, checkpoints."""
