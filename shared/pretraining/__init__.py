"""A tiny base model, made here from nothing: tokenizer, corpus, pre-training."""
