"""Wall time of a run: in all, in lives of the time limit, and in node-hours."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.model import Site, limit_in_seconds
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.prep_sample import PrepSample
from matsci_hpc.preflight.speed import Speed, in_words
from matsci_hpc.preflight.words import counted, time_in_words

DOUBT = 2.0
"""By so much the time that a trial here foretells may be off on other nodes: only beyond it are lives an error."""
LONG_LOSS_S = 3600.0
"""Work between two checkpoints that a person is told of."""
MOST_EVALUATIONS = 100_000
"""Laid into lives one by one; where there are more, the others are taken to need lives at the same rate."""


@dataclass(frozen=True, slots=True)
class Duration:
    """How long a run still takes.

    Attributes:
        steps: that are left.
        work_s: steps and evaluations.
        life_s: of a life in which steps are taken; None without a limit.
        lives: that it takes; None if no life gets as far as a step, or as the end of an evaluation.
        total_s: with the start of every life, and with evaluations that are begun in vain.
        evaluation_s: of one evaluation of the held-out split, which has to fit into a life.
        end_s: of those at the last step, which have to fit into one life together.
    """

    steps: int
    work_s: float
    life_s: float | None
    lives: int | None
    total_s: float
    evaluation_s: float
    end_s: float


def foretell(
    config: TrainConfig, speed: Speed, steps_done: int, limit_s: float | None, *, complete: bool = False
) -> Duration:
    """How long the steps that are left take, and the evaluations.

    Args:
        config: of the run.
        speed: of a step.
        steps_done: by earlier lives.
        limit_s: from the start of a life to the wish to save; None for no limit.
        complete: whether the evaluations after the last step are done, too.
    """
    ended = complete or steps_done > config.steps  # of which another check says that it is an error
    steps = 0 if ended else config.steps - steps_done
    every = config.evaluate.every_steps
    has_held_out = config.data.held_out is not None and not ended
    # Steps after which the held-out split is evaluated before the last one.
    marks = range((steps_done // every + 1) * every, config.steps if has_held_out else 0, every)
    evaluation_s = speed.evaluation_s if has_held_out else 0.0
    # A life that begins at the last step evaluates the held-out split again before the final one.
    end_s = evaluation_s + (speed.final_s if config.evaluate.final_split is not None and not ended else 0.0)
    work_s = steps * speed.step_s + len(marks) * evaluation_s + end_s
    bounds = [limit_s - speed.startup_s] if limit_s is not None else []
    if config.max_time_s is not None:
        bounds.append(config.max_time_s)
    life_s = min(bounds) if bounds else None
    lives: int | None = 1
    lost_s = 0.0
    if life_s is not None:
        lives = None
        if life_s > (speed.step_s if steps else 0.0) and life_s >= end_s:
            lives, lost_s = _lives(life_s, speed.step_s, steps_done, marks, config.steps, evaluation_s, end_s)
    total_s = work_s + lost_s + (lives or 1) * speed.startup_s
    return Duration(steps, work_s, life_s, lives, total_s, evaluation_s, end_s)


def _lives(
    life_s: float, step_s: float, at: int, marks: range, last: int, evaluation_s: float, end_s: float
) -> tuple[int, float]:
    """Lives, and the time in them of evaluations that the end of a life breaks off.

    Steps go on where the life before has ended. An evaluation that is stopped leaves nothing, and the next life begins
    it anew.

    Args:
        life_s: not below `evaluation_s` and `end_s`.
        step_s: of a step.
        at: steps that are done.
        marks: steps with an evaluation before the last step.
        last: step.
        evaluation_s: of each evaluation at a mark.
        end_s: of those after the last step.
    """
    lives, used_s, lost_s = 1, 0.0, 0.0
    looked_at = marks[:MOST_EVALUATIONS]
    skipped = len(marks) - len(looked_at)
    for mark, whole_s in [*((mark, evaluation_s) for mark in looked_at), (last - skipped * marks.step, end_s)]:
        used_s += (mark - at) * step_s
        full = max(math.ceil(used_s / life_s) - 1, 0)
        lives, used_s, at = lives + full, used_s - full * life_s, mark
        if used_s + whole_s > life_s:
            lives, lost_s, used_s = lives + 1, lost_s + life_s - used_s, 0.0
        used_s += whole_s
    scale = 1 + skipped / max(len(looked_at), 1)
    return math.ceil(lives * scale), lost_s * scale


def working_limit_s(job: Job, site: Site) -> float | None:
    """Seconds of a life until it is asked to save; None if it has no limit."""
    if site.scheduler == "local" or job.time_limit is None:
        return None
    return max(limit_in_seconds(job.time_limit) - site.signal_before_end_s, 0.0)


def duration_findings(
    config: TrainConfig, job: Job, site: Site, speed: Speed, steps_done: int, *, complete: bool = False
) -> Iterator[Finding]:
    """Hours, lives and node-hours, and whether the site allows that many lives."""
    found = foretell(config, speed, steps_done, working_limit_s(job, site), complete=complete)
    if not found.work_s:
        return
    doubt = "" if speed.measured_there else "; other processors and the exchange between ranks change that"
    yield Finding("ok", "speed", f"{in_words(speed)}, from {speed.source}{doubt}")
    node_hours = found.total_s / 3600 * job.nodes
    what = f"{counted(found.steps, 'step')} with evaluations" if found.steps else "the evaluations after the last step"
    text = f"{time_in_words(found.total_s)} for {what}, {node_hours:.3g} node-hours"
    if found.lives is None:
        unending = _unending(config, found, speed)
        if unending is not None:
            yield unending
            return
        yield Finding(
            "error" if speed.measured_there else "warning",
            "wall time",
            f"a life has {time_in_words(max(found.life_s or 0.0, 0.0))} for steps, and a step takes "
            f"{time_in_words(speed.step_s)}",
            "give more time, more ranks or a smaller batch",
        )
        return
    if found.life_s is None:
        yield Finding("ok", "wall time", f"{text}, without a time limit")
    elif found.lives > site.max_lives:
        certain = speed.measured_there or found.lives > DOUBT * site.max_lives
        yield Finding(
            "error" if certain else "warning",
            "wall time",
            f"{text}: {found.lives:,} lives of {_limit(config, job)}, and the site allows {site.max_lives:,}",
            "give more time, more ranks, or raise max_lives of the site",
        )
    else:
        number = "one life" if found.lives == 1 else f"{found.lives:,} lives"
        yield Finding("ok", "wall time", f"{text}: {number} of {_limit(config, job)}")
    if found.steps:
        yield from _between_checkpoints(config, found, speed)


def _unending(config: TrainConfig, found: Duration, speed: Speed) -> Finding | None:
    """Evaluations that no life gets to the end of, if there are such."""
    life_s = max(found.life_s or 0.0, 0.0)
    if (found.steps and life_s <= speed.step_s) or found.end_s <= life_s:
        return None
    whole_s, key = found.evaluation_s, "data.held_out"
    what = f"an evaluation of {config.data.held_out!r} takes {time_in_words(whole_s)}"
    if found.evaluation_s <= life_s:
        whole_s, key = found.end_s, "evaluate.final_split"
        what = f"the final evaluation, of {config.evaluate.final_split!r}, takes {time_in_words(speed.final_s)}"
        if found.evaluation_s:
            what += f" after {time_in_words(found.evaluation_s)} of that of {config.data.held_out!r}"
    return Finding(
        "error" if speed.measured_there or whole_s > DOUBT * life_s else "warning",
        "evaluation",
        f"{what}, and a life has {time_in_words(life_s)} for it: what is stopped begins anew in the next life, so the "
        "run would not end",
        f"give more time, more ranks, or a smaller split as {key}",
    )


def _limit(config: TrainConfig, job: Job) -> str:
    """What ends a life: the job's time limit, or the config's."""
    return job.time_limit or f"max_time_s: {config.max_time_s:g}"


def _between_checkpoints(config: TrainConfig, found: Duration, speed: Speed) -> Iterator[Finding]:
    between_s = config.checkpoint.every_steps * speed.step_s
    text = f"{time_in_words(between_s)} between checkpoints ({counted(config.checkpoint.every_steps, 'step')})"
    advice = "lower checkpoint.every_steps"
    if found.life_s is not None and between_s > found.life_s and found.lives and found.lives > 1:
        text += f", more than a life has ({time_in_words(found.life_s)}): one that is killed leaves nothing"
        yield Finding("warning", "checkpoint", text, advice)
    elif between_s > LONG_LOSS_S and found.work_s > between_s:
        yield Finding("warning", "checkpoint", f"{text} are lost when a node fails", advice)
    else:
        yield Finding("ok", "checkpoint", text)


def preparation_findings(sample: PrepSample, job: Job, site: Site) -> Iterator[Finding]:
    """How long a preparation takes, from a few of its inputs on one core here."""
    total_s = sample.input_s * sample.inputs / job.ranks
    inputs = counted(sample.inputs, "input")
    if not sample.exact:
        inputs = f"about {inputs} (estimated, as only a part of the input was looked at)"
    text = (
        f"about {time_in_words(total_s)} for {inputs} on {counted(job.ranks, 'rank')}, from "
        f"{sample.sampled:,} of them on one core of this machine, {1e3 * sample.input_s:.3g} ms each"
    )
    limit_s = working_limit_s(job, site)
    if limit_s is not None and total_s > site.max_lives * limit_s:
        advice = "give more time or more ranks"
        yield Finding("warning", "wall time", f"{text}; {job.time_limit} x {site.max_lives} lives are less", advice)
    elif limit_s is not None and total_s > limit_s:
        lives = -(-total_s // limit_s)
        yield Finding("ok", "wall time", f"{text}: {lives:.0f} lives of {job.time_limit}, finished shards are kept")
    else:
        yield Finding("ok", "wall time", text)
