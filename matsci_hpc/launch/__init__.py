"""From a config to a started job."""
