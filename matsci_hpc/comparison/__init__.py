"""Ways to train, compared at equal budget: which runs, what they came to, and what may be said of it."""
