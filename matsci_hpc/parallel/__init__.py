"""The one door to the network: ranks, devices and communicators."""
