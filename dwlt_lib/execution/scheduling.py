"""Which jobs a run starts, and in which order.

A record on disk is the only proof that a job is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from dwlt_lib.config.order import bisection, coarse_to_fine_rank, ordered
from dwlt_lib.config.planning import Job, expand, jobs, plan
from dwlt_lib.config.specs import Spec, record_id, upstream
from dwlt_lib.config.studies import Study
from dwlt_lib.execution.costs import cost
from dwlt_lib.records import store

MAX_COST = 1e6
"""The most GMAC of a job that can be split: hours of a core, tens of seconds of a fast GPU."""
JOBS_PER_WORKER = 4
"""How many jobs each worker gets at least, where they can be split."""


def missing_specs(study: Study) -> list[Spec]:
    """The planned records that are not there yet.

    Args:
        study: the study.

    Returns:
        Their descriptions, in the order in which they are to be made.
    """
    return [spec for spec in ordered(plan(study)) if not store.exists(spec)]


def split_job(study: Study, job: Job, max_cost: float) -> list[Job]:
    """Split a job until each part costs at most `max_cost`, by its seeds first, then its rounds.

    Both are split into a coarse half (both ends, the middle, ...) and what lies between. A job that
    prunes, or that has one round and one seed, is not split.

    Args:
        study: the job's study.
        job: the job to split.
        max_cost: in GMAC.

    Returns:
        Jobs that together make the same records, each once.
    """
    field = "seeds" if len(job.seeds) > 1 else "rounds"
    values = getattr(job, field)
    whole = sum(map(cost, expand(study, job))) <= max_cost
    if whole or job.kind == "prune" or len(values) <= 1:
        return [job]
    rank, half = bisection(values), (len(values) + 1) // 2
    coarse = tuple(value for value in values if rank[value] < half)
    fine = tuple(value for value in values if rank[value] >= half)
    parts = [job.model_copy(update={field: part}) for part in (coarse, fine)]
    return [small for part in parts for small in split_job(study, part, max_cost)]


def pending_jobs(study: Study, workers: int) -> dict[Job, list[Spec]]:
    """The jobs that have records to make, split so that every worker gets several.

    Args:
        study: the study.
        workers: how many jobs run at a time.

    Returns:
        For each job the records that are missing, in plan order.
    """
    missing = {record_id(spec): cost(spec) for spec in missing_specs(study)}
    max_cost = min(MAX_COST, sum(missing.values()) / (JOBS_PER_WORKER * workers))
    found = {}
    for job in jobs(study):
        for part in split_job(study, job, max_cost):
            found[part] = [spec for spec in expand(study, part) if record_id(spec) in missing]
    return {job: specs for job, specs in found.items() if specs}


def is_ready(specs: Iterable[Spec]) -> bool:
    """Whether records can be made now.

    Args:
        specs: their descriptions.

    Returns:
        True if all that they build on is there or among them.
    """
    specs = list(specs)
    own = {record_id(spec) for spec in specs}
    needed = [up for spec in specs for up in upstream(spec)]
    return all(record_id(up) in own or store.exists(up) for up in needed)


def still_missing(pending: Mapping[Job, list[Spec]]) -> dict[Job, list[Spec]]:
    """The jobs that still have records to make, which other runs may have made meanwhile.

    Args:
        pending: of `pending_jobs`.

    Returns:
        The same without what is there.
    """
    left = {
        job: [spec for spec in specs if not store.exists(spec)] for job, specs in pending.items()
    }
    return {job: specs for job, specs in left.items() if specs}


def is_held(spec: Spec, held: Collection[str]) -> bool:
    """Whether a record has to wait for another process.

    Args:
        spec: its description.
        held: ids of the records that processes are making (`leases.holders`).

    Returns:
        True if it is among them, or a missing record that it builds on has to wait.
    """
    return record_id(spec) in held or any(
        is_held(up, held) for up in upstream(spec) if not store.exists(up)
    )


def startable(pending: Mapping[Job, list[Spec]], held: Collection[str]) -> list[Job]:
    """The jobs that can be started now.

    Args:
        pending: jobs with the records that each still has to make.
        held: ids of the records that processes are making.

    Returns:
        Those of which nothing is held; if there are none, those of which a part is free.
    """
    if not held:
        return [job for job, specs in pending.items() if is_ready(specs)]
    free = {
        job: [spec for spec in specs if not is_held(spec, held)] for job, specs in pending.items()
    }
    ready = [job for job, specs in pending.items() if free[job] and is_ready(specs)]
    untouched = [job for job in ready if len(free[job]) == len(pending[job])]
    return untouched or ready


def is_waiting(pending: Mapping[Job, list[Spec]], held: Collection[str]) -> bool:
    """Whether pending jobs wait for what other processes are making.

    Args:
        pending: jobs with the records that each still has to make.
        held: ids of the records that processes are making.

    Returns:
        False if nothing of theirs is held.
    """
    return any(is_held(spec, held) for specs in pending.values() for spec in specs)


def job_priorities(study: Study, pending: Mapping[Job, list[Spec]]) -> dict[Job, tuple]:
    """A sort key for each pending job; the least starts first.

    First what others wait for (pre-training, then pruning), then coarse figures before finer ones,
    then the costliest.

    Args:
        study: the study.
        pending: of `pending_jobs`.

    Returns:
        A tuple per job, comparable with the others.
    """
    rank, stage = coarse_to_fine_rank(plan(study)), {"pretrain": 0, "prune": 1}
    return {
        job: (stage.get(job.kind, 2), min(map(rank, missing)), -sum(map(cost, missing)))
        for job, missing in pending.items()
    }
