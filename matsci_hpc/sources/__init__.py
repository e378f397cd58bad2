"""Where structures come from, one file each."""
