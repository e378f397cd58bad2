"""Targets that are the negative gradient of a predicted energy, as forces are: what has to fit for that.

Nothing here needs torch: these rules are also asked before a job is queued.
"""

from collections.abc import Collection, Iterator, Mapping

from matsci_hpc.targets import TargetSpec

ANGSTROM = frozenset({"angstrom", "ang", "a", "å", "\N{ANGSTROM SIGN}"})
"""Names of the unit of length, in small letters."""


def refuse_bad_gradients(
    gradients: Mapping[str, str], targets: Collection[str], *, envelope: bool, optimize: str
) -> None:
    """See to it that a config can have the gradients that it asks for.

    Args:
        gradients: by target, the energy that it is the negative gradient of.
        targets: all targets of the config.
        envelope: whether the encoder's messages fade to zero at the cutoff.
        optimize: how steps are made faster.

    Raises:
        ValueError: they do not go together.
    """
    for name, energy in gradients.items():
        where = f"targets.{name}.gradient_of: {energy}"
        if energy not in targets:
            raise ValueError(f"{where} is not among the targets; add {energy}: {{}} to them")
        if energy in gradients:
            raise ValueError(f"{where} is itself a gradient; name an energy")
        if not envelope:
            raise ValueError(
                f"{where} needs model.envelope: true; without it the energy jumps as an atom crosses the cutoff, and "
                "its gradient knows nothing of that"
            )
        if optimize != "none":
            raise ValueError(
                f"{where} needs optimize: none; learning a gradient takes derivatives of derivatives, which "
                f"optimize: {optimize} does not have"
            )


def unfit_gradients(gradients: Mapping[str, str], specs: Mapping[str, TargetSpec]) -> Iterator[str]:
    """What is wrong with gradients for the targets that the data sets have, one message for each fault.

    Args:
        gradients: by target, the energy that it is the negative gradient of.
        specs: of the targets of the data sets, by name; a target that is not there is no fault here.
    """
    for name, energy in gradients.items():
        if name not in specs or energy not in specs:
            continue
        vector, number = specs[name], specs[energy]
        where = f"targets.{name}.gradient_of: {energy}"
        if not vector.per_atom or vector.shape != (3,):
            yield f"{where}: a gradient is a vector of every atom, and {name} is not; leave gradient_of out"
        elif number.kind != "regression" or not number.is_number:
            yield f"{where} is no energy: it is not one number of a structure"
        elif vector.unit is not None and number.unit is not None and not is_slope(vector.unit, number.unit):
            yield (
                f"{where}: {energy} is in {number.unit}, so its gradient is in {number.unit}/angstrom, and {name} is "
                f"in {vector.unit}; prepare the energy of the whole structure in the unit of the forces times angstrom"
            )


def is_slope(unit: str, of: str) -> bool:
    """Whether a unit is that of another one per angstrom, such as eV/angstrom of eV."""
    numerator, slash, denominator = unit.replace(" ", "").rpartition("/")
    return bool(slash) and numerator == of.replace(" ", "") and denominator.lower() in ANGSTROM
