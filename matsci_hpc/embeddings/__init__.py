"""Embeddings of data sets by the encoder of a run: computed by many ranks, kept in one file, read again for maps."""
