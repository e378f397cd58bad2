"""What a run records: step timing, hardware, provenance."""
