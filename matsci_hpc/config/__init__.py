"""The config tree, one module per verb, and how it is read from YAML."""
