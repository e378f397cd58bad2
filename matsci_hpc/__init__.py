"""From raw crystal structures to a pretrained graph network on a cluster.

A trained model is used by `from matsci_hpc import load_model`: see docs/using_models.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matsci_hpc.inference.opening import load_model

__all__ = ["load_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load what needs torch when it is asked for: `import matsci_hpc` stays light."""
    if name == "load_model":
        from matsci_hpc.inference.opening import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
