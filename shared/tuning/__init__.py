"""Fine-tuning a language model to price products: examples in, a model of one's own out."""
