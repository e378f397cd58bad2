"""From raw crystal structures to a pretrained graph network on a cluster."""

__version__ = "0.1.0"
