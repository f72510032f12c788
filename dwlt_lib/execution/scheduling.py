"""Which jobs a run starts, and in which order.

A record on disk is the only proof that a job is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dwlt_lib.config.costs import cost
from dwlt_lib.config.order import bisection, coarse_to_fine_rank, ordered
from dwlt_lib.config.planning import Job, expand, jobs, plan
from dwlt_lib.config.specs import Spec, ladder, other_seeds, record_id, upstream
from dwlt_lib.config.studies import Study
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

    Rounds are split into a coarse half (both ends, the middle, ...) and the levels between. A job
    that prunes, or that has one round and one seed, is not split.

    Args:
        study: the job's study.
        job: the job to split.
        max_cost: in GMAC.

    Returns:
        Jobs that together make the same records, each once.
    """
    if job.kind == "prune" or sum(map(cost, expand(study, job))) <= max_cost:
        return [job]
    if len(job.seeds) > 1:
        half = (len(job.seeds) + 1) // 2
        parts = [{"seeds": job.seeds[:half]}, {"seeds": job.seeds[half:]}]
    elif len(job.rounds) > 1:
        rank, half = bisection(job.rounds), (len(job.rounds) + 1) // 2
        coarse = tuple(rounds for rounds in job.rounds if rank[rounds] < half)
        fine = tuple(rounds for rounds in job.rounds if rank[rounds] >= half)
        parts = [{"rounds": coarse}, {"rounds": fine}]
    else:
        return [job]
    return [
        small for part in parts for small in split_job(study, job.model_copy(update=part), max_cost)
    ]


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
        if not any(record_id(spec) in missing for spec in expand(study, job)):
            continue
        for part in split_job(study, job, max_cost):
            wanted = [spec for spec in expand(study, part) if record_id(spec) in missing]
            if wanted:
                found[part] = wanted
    return found


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


def job_label(study: Study, job: Job) -> str:
    """What a job makes, from what, at which sparsities and seeds.

    Args:
        study: the job's study.
        job: the job.

    Returns:
        One short line.
    """
    words = [job.kind.replace("_", " "), job.pretraining]
    usual = {
        "theta_seed": study.seed,
        "mask_seed": study.mask_seed,
        "subset_seed": study.subset_seed,
    }
    seeds = other_seeds(job.model_dump(), usual)
    if job.kind == "pretrain":
        if job.dataset:
            words.append(f"unseen robust model on {job.dataset}")
        return " ".join(words) + seeds
    words.append("dense" if job.rounds == (0,) else job.method)
    if job.kind != "prune":
        words.append(f"on {job.dataset} {100 * job.fraction:g} % {job.regime}")
    percents = [f"{100 * ladder(rounds, study.prune_fraction):.1f}" for rounds in job.rounds]
    ends = percents if len(percents) == 1 else [percents[0], percents[-1]]
    words.append(f"at {'-'.join(ends)} %")
    if job.seeds:
        seeds = f", seeds {' '.join(map(str, job.seeds))}{seeds}"
    return " ".join(words) + seeds
