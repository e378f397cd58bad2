"""The loop and what it needs: losses, schedules, checkpoints, stopping."""
