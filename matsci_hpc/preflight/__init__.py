"""What can be known to fail before a job waits in a queue."""
