"""From an index to balanced batches of tensors."""
