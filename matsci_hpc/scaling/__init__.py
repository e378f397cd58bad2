"""Scaling studies: measurements by rank count, what they say about efficiency, and what they predict."""
