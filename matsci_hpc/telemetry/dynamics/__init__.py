"""What the optimiser does to a model, and what a loss spike is preceded by (Molybog et al. 2023, arXiv:2304.09871)."""
