"""`python -m matsci_hpc` is the same as `matsci-hpc`."""

from matsci_hpc.cli import main

if __name__ == "__main__":
    main()
