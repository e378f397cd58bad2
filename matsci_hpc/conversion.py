"""A block of inputs to the content of its shard: structures, their edges, and what was rejected."""

from collections.abc import Mapping

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.flat_conversion import flat_content
from matsci_hpc.neighbors import RULE, Edges, NeighborError, radius_graph
from matsci_hpc.shards.layout import ShardContent, build_content
from matsci_hpc.shards.records import Quarantined
from matsci_hpc.sources.base import FlatSource, Source, StructureWithEdges
from matsci_hpc.splits import split_for
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import TargetSpec


def convert(
    config: PrepConfig, source: Source, start: int, stop: int, number: int
) -> tuple[ShardContent | None, list[Quarantined]]:
    """What the shard of the inputs `start` to `stop - 1` holds, None where no input is usable, and the others.

    Sources that offer whole arrays are not asked for an object per sample; the shard is the same.
    """
    if isinstance(source, FlatSource):
        content, rejected = flat_content(source, start, stop, config.neighbors)
        if content is not None:
            content.attributes = _attributes(config, number)
        return content, rejected
    structures, edges, rejected = read_block(config, source, start, stop)
    return block_content(config, source, structures, edges, number) if structures else None, rejected


def read_block(
    config: PrepConfig, source: Source, start: int, stop: int
) -> tuple[list[Structure], list[Edges], list[Quarantined]]:
    """Usable structures with their edges, and the other inputs, among the inputs `start` to `stop - 1`."""
    structures: list[Structure] = []
    edges: list[Edges] = []
    rejected: list[Quarantined] = []
    for index, each in enumerate(source.read(start, stop), start):
        outcome = _with_edges(each, source.targets, config.neighbors.cutoff)
        if isinstance(outcome, Rejected):
            rejected.append(Quarantined(index=index, source=outcome.source, reason=outcome.reason))
        elif isinstance(each, Structure):
            structures.append(each)
            edges.append(outcome)
    return structures, edges, rejected


def block_content(
    config: PrepConfig, source: Source, structures: list[Structure], edges: list[Edges], number: int
) -> ShardContent:
    """What the shard of a block holds."""
    names = list(source.splits)
    splits = [names.index(each.split or split_for(each, config.splits, config.split_by)) for each in structures]
    content = build_content(structures, edges, source.targets, splits, store_edges=config.neighbors.store)
    content.attributes = _attributes(config, number)
    return content


def _attributes(config: PrepConfig, number: int) -> dict[str, str | int | float]:
    return {"cutoff_angstrom": config.neighbors.cutoff, "neighbor_rule": RULE, "number": number}


def _with_edges(each: Structure | Rejected, targets: Mapping[str, TargetSpec], cutoff: float) -> Edges | Rejected:
    if isinstance(each, Rejected):
        return each
    fault = each.fault(targets)
    if fault is not None:
        return Rejected(each.source or each.id, fault)
    if isinstance(each, StructureWithEdges) and each.cutoff == cutoff:
        return each.edges
    try:
        return radius_graph(each, cutoff)
    except NeighborError as error:
        return Rejected(each.source or each.id, str(error))
