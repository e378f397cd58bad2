"""Machines: what a site file says, where it is found, how one is made and checked."""
