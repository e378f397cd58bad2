"""Which ranks kept the others waiting over a run, and why, from the stragglers of its metrics lines."""

from matsci_hpc.analysis.records import Record, Run, as_mapping, as_number

REASONS = {"work": "more work than others", "data": "slower data", "node": "slower node"}
SHOWN = 12


def straggler_rows(run: Run) -> list[Record]:
    """A row for each rank, host and reason, the most frequent ones first.

    Returns:
        rank, host, reason, intervals (metrics lines in which it was one), share of all lines, ratio (the mean busy time
        over that of the median rank), in_row (longest), first and last step.
    """
    rows: dict[tuple[int, str, str], Record] = {}
    for line in run.steps:
        for each in stragglers_of(line):
            key = (each["rank"], each["host"], each["reason"])
            row = rows.setdefault(
                key,
                {
                    **each,
                    "reason": REASONS[each["reason"]],
                    "count": 0,
                    "total": 0.0,
                    "in_row": 0,
                    "first": line["step"],
                },
            )
            row["count"] += 1
            row["total"] += each["ratio"]
            row["in_row"] = max(row["in_row"], each["intervals"])
            row["last"] = line["step"]
    for row in rows.values():
        row |= {"ratio": row["total"] / row["count"], "share": row["count"] / len(run.steps)}
    return sorted(rows.values(), key=lambda row: (-row["count"], row["rank"]))[:SHOWN]


def stragglers_of(line: Record) -> list[Record]:
    """Those of one metrics line, without what is damaged."""
    found = line.get("stragglers")
    known = []
    for each in map(as_mapping, found if isinstance(found, list) else []):
        rank, ratio, intervals = each.get("rank"), as_number(each.get("ratio")), each.get("intervals")
        if type(rank) is int and ratio is not None and type(intervals) is int and each.get("reason") in REASONS:
            host = str(each.get("host", ""))
            known.append({"rank": rank, "host": host, "ratio": ratio, "reason": each["reason"], "intervals": intervals})
    return known
