"""What no package index holds ready-made, built into the environment that matsci-hpc runs in."""
