"""Use of what was trained: a model from a run or an exported file, its predictions, and its way out of here."""
