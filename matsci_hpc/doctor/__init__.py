"""What this machine has, what of it is used, and why the rest is not."""
