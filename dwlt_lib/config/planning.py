"""The plan of a study: the records that it asks for, and the jobs that make them.

Nothing is read and nothing computed: a plan needs the study alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

from dwlt_lib.config import specs
from dwlt_lib.config.datasets import DataSet, Frozen
from dwlt_lib.config.recipes import PGD, Regime, TrainingConfig, TrainingOverrides
from dwlt_lib.config.specs import Method, Natural, Pictures, Pretraining, Spec
from dwlt_lib.config.studies import DENSE, Grid, Masks, Study, dataset, found_by

IMAGES_PER_CLASS = 10
"""That SNIP and GraSP see of the source (Wang et al. 2020, section 5; Tanaka et al. 2020)."""


def _training_config(
    study: Study, row: DataSet, regime: Regime, *layers: TrainingOverrides
) -> TrainingConfig:
    """One configuration out of layers of settings, of which later ones win.

    The attack's eps and alpha are the data set's unless set.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings |= layer.model_dump(exclude_none=True)
    missing = {"epochs", "batch", "lr", "schedule", "momentum", "weight_decay"} - settings.keys()
    if missing:
        raise ValueError(f"a {regime} recipe lacks {', '.join(sorted(missing))}; set them")
    if settings.get("micro_batch_size", 0) >= settings["batch"]:
        del settings["micro_batch_size"]  # all of a batch
    eps, steps = settings.pop("eps", row.eps), settings.pop("steps", 1)
    # Wong et al. 2020 take 1.25 eps for FAT
    usual = min(1.0, 1.25 * eps) if regime == "FAT" and eps > 0 else row.alpha
    alpha, attack = settings.pop("alpha", usual), None
    if regime != "ST":
        steps = 1 if regime == "FAT" else steps
        attack = PGD(eps, alpha, steps, precision=study.precision, bn=study.attack_bn)
    # where the rate ends at 0 the last epoch is as good as any, and choosing by few validation
    # images adds noise; but FAT may collapse on the way (section 3)
    ends_at_zero = settings["schedule"] in ("one_cycle", "cosine") and regime != "FAT"
    settings.setdefault("selection", "last" if ends_at_zero else "best")
    return TrainingConfig(
        **settings, attack=attack, precision=study.precision, deterministic=study.deterministic
    )


def _evaluation(study: Study, row: DataSet) -> PGD:
    return PGD(
        row.eps,
        row.alpha,
        study.evaluation_steps,
        restarts=study.evaluation_restarts,
        precision=study.evaluation_precision,
        bn="eval",
    )


def theta(
    study: Study, pretraining: Pretraining, seed: int | None = None
) -> specs.PretrainingSpec | specs.ImportedSpec:
    """theta_p on the study's source, from its file if the study names one.

    Args:
        study: the study, whose recipes count.
        pretraining: p.
        seed: seed of the initialisation and of training; None: the study's.

    Returns:
        Its description.

    Raises:
        ValueError: theta_p comes from a file, and another seed is asked for.
    """
    row, regime = dataset(study, study.source), specs.REGIME_OF[pretraining]
    seed = study.seed if seed is None else seed
    shared: dict[str, Any] = {
        "pretraining": pretraining,
        "arch": study.arch,
        "data": row,
        "evaluation": _evaluation(study, row),
    }
    if given := study.weights.get(pretraining):
        if seed != study.seed:
            raise ValueError(
                f"theta_{pretraining} comes from a file, so there is none of seed {seed}; take"
                f" theta_seeds and {specs.TRANSPLANTED} out, or have it trained"
            )
        return specs.ImportedSpec(**shared, theta=given.theta or specs.UNKNOWN, file=given.file)
    recipe = _training_config(study, row, regime, study.pretraining[pretraining])
    return specs.PretrainingSpec(**shared, seed=seed, recipe=recipe, ra=study.ra)


def surrogate(study: Study, name: str) -> specs.PretrainingSpec:
    """The unseen robust model of a transfer attack, trained on a downstream data set.

    Args:
        study: the study, whose `surrogate` says which network.
        name: of the data set.

    Returns:
        Its description.
    """
    row = dataset(study, name)
    return specs.PretrainingSpec(
        pretraining="AT",
        arch=study.surrogate.arch,
        data=row,
        seed=study.surrogate.seed,
        recipe=_training_config(study, row, "AT", study.pretraining["AT"], study.surrogate.recipe),
        evaluation=_evaluation(study, row),
        ra=study.ra,
    )


def mask(  # noqa: PLR0913  the coordinates of a mask in a study, as tables have them
    study: Study,
    pretraining: Pretraining,
    method: Method,
    rounds: int,
    theta_seed: int | None = None,
    mask_seed: int | None = None,
) -> specs.MaskSpec | None:
    """The mask m after `rounds` rounds of a method.

    Args:
        study: the study, whose recipes count.
        pretraining: theta_p.
        method: how m is found; IMP-ST-reinit has the mask of IMP-ST, and IMP-ST-transplant that of
            the theta_p of the next seed.
        rounds: rounds of pruning; 0 is the dense network.
        theta_seed: seed of theta_p; None: the study's.
        mask_seed: seed of the mask; None: the study's.

    Returns:
        Its description; None for the dense network.
    """
    if rounds == DENSE:
        return None
    theta_seed = study.seed if theta_seed is None else theta_seed
    mask_seed = study.mask_seed if mask_seed is None else mask_seed
    source = theta(study, pretraining, theta_seed + (method == specs.TRANSPLANTED))
    finder, retrain, images = found_by(method), None, 0
    if method in specs.SCORED:
        images = min(IMAGES_PER_CLASS * source.data.classes, source.data.train_images)
    for recipe, overrides in study.retraining.items():
        if finder.startswith(recipe):
            regime = "AT" if recipe == "IMP-AT" else "ST"
            retrain = _training_config(study, source.data, regime, overrides)
    return specs.MaskSpec(
        theta=source,
        method=specs.SHUFFLED if method == specs.SHUFFLED else finder,
        rounds=rounds,
        prune_fraction=study.prune_fraction,
        retrain=retrain,
        seed=0 if method in specs.UNSEEDED else mask_seed,
        images=images,
    )


def transfer(  # noqa: PLR0913  the coordinates of a ticket in a study, as tables have them
    study: Study,
    pretraining: Pretraining,
    method: Method,
    dataset_name: str,
    fraction: float,
    regime: Regime,
    rounds: int,
    seed: int,
    *,
    theta_seed: int | None = None,
    mask_seed: int | None = None,
    subset_seed: int | None = None,
) -> specs.TransferSpec:
    """The transfer of a ticket (theta_p, m) to a downstream task.

    Weights are kept when this study's landscapes or attacks need them, or all are to be kept.

    Args:
        study: the study, whose recipes and overrides count.
        pretraining: theta_p.
        method: how m is found; any, for the dense network.
        dataset_name: the downstream data set.
        fraction: share of its training images, in (0, 1].
        regime: how the ticket is trained there.
        rounds: rounds of pruning; 0 is the dense network.
        seed: seed of the head, the order of images and the attacks' starts, and of the new weights
            of IMP-ST-reinit.
        theta_seed: seed of theta_p; None: the study's.
        mask_seed: seed of the mask; None: the study's.
        subset_seed: seed of the subset of the data; None: the study's.

    Returns:
        Its description.
    """
    theta_seed = study.seed if theta_seed is None else theta_seed
    mask_seed = study.mask_seed if mask_seed is None else mask_seed
    subset_seed = study.subset_seed if subset_seed is None else subset_seed
    row = dataset(study, dataset_name)
    layers = [study.transfer[regime]]
    layers += [
        override.recipe
        for override in study.overrides
        if override.changes(dataset_name, regime, fraction)
    ]
    ticket = {
        "pretraining": pretraining,
        "method": method,
        "dataset": dataset_name,
        "fraction": fraction,
        "regime": regime,
        "rounds": rounds,
        "seeds": seed,
        "theta_seeds": theta_seed,
        "mask_seeds": mask_seed,
        "subset_seeds": subset_seed,
    }
    attacked = (*study.transfer_attacks, *study.robustness)
    keep = "none"
    if any(_covers(study, block, ticket) for block in study.landscapes):
        keep = "trajectory"
    elif study.keep_weights or any(_covers(study, block, ticket) for block in attacked):
        keep = "selected"
    m = mask(study, pretraining, method, rounds, theta_seed, mask_seed)
    return specs.TransferSpec(
        theta=theta(study, pretraining, theta_seed),
        mask=m,
        weights="reinitialized" if m and method == specs.REINITIALIZED else "theta_p",
        data=row,
        fraction=fraction,
        subset_rule=study.subset_rule,
        subset_seed=subset_seed,
        regime=regime,
        recipe=_training_config(study, row, regime, *layers),
        evaluation=_evaluation(study, row),
        ra=study.ra,
        seed=seed,
        keep=keep,
    )


def _covers(study: Study, block: Grid, ticket: dict[str, Any]) -> bool:
    """Whether a block asks for the ticket of these coordinates."""
    asked = {name: getattr(block, name) for name in ticket}
    asked |= _seeds(study, block, ticket["method"])
    if ticket["rounds"] == DENSE:  # one for all methods and masks
        asked["seeds"] = _dense_seeds(block)
        del asked["method"], asked["mask_seeds"]
    return all(ticket[name] in values for name, values in asked.items())


def _dense_seeds(block: Grid) -> tuple[int, ...]:
    return block.dense_seeds or block.seeds


def _seeds(study: Study, block: Masks, method: Method) -> dict[str, tuple[int, ...]]:
    """The seeds of theta_p, masks and subsets of a block, where it has none the study's."""
    found = {"theta_seeds": block.theta_seeds or (study.seed,)}
    # one-shot pruning draws nothing
    masks = None if method in specs.UNSEEDED else block.mask_seeds
    found["mask_seeds"] = masks or (study.mask_seed,)
    if isinstance(block, Grid):
        found["subset_seeds"] = block.subset_seeds or (study.subset_seed,)
    return found


# ----------------------------------------------------------------------------------------------
# jobs and plan


JobKind = Literal[
    "pretrain",
    "prune",
    "transfer",
    "data_efficiency",
    "landscape",
    "transfer_attack",
    "robustness",
]


class Job(Frozen, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]  # says it hashes
    """One run of one compute notebook: records that share all but rounds and training seeds.

    Fields that a kind does not use keep their defaults.
    """

    kind: JobKind
    """Names the notebook: landscape makes surfaces and trajectories, data_efficiency is transfer
    with a fraction below 1."""
    pretraining: Pretraining
    """theta_p."""
    method: Method = "IMP-ST"
    """How masks are found."""
    dataset: str = ""
    """The downstream data set; of a pretrain job, the data set of the unseen robust model, or ""
    for theta_p on the study's source."""
    fraction: float = 1.0
    """Share of the training data."""
    regime: Regime = "AT"
    """How tickets are trained downstream."""
    rounds: tuple[int, ...] = ()
    """Rounds of pruning; 0 is the dense network."""
    seeds: tuple[int, ...] = ()
    """Seeds of transfers."""
    theta_seed: Natural | None = None
    """Seed of theta_p; None: the study's, as of the next two."""
    mask_seed: Natural | None = None
    """Seed of the masks."""
    subset_seed: Natural | None = None
    """Seed of the subset of the training data."""
    images: tuple[Pictures, ...] = ()
    """Test images that losses are taken on."""


_TICKET = tuple(name for name in Job.model_fields if name not in ("kind", "images"))
NOTEBOOKS: dict[JobKind, tuple[str, tuple[str, ...]]] = {
    "pretrain": ("01_pretrain", ("pretraining", "dataset", "theta_seed")),
    "prune": ("02_prune", ("pretraining", "method", "rounds", "theta_seed", "mask_seed")),
    "transfer": ("03_transfer", _TICKET),
    "data_efficiency": ("04_data_efficiency", _TICKET),
    "landscape": ("05_loss_landscape", (*_TICKET, "images")),
    "transfer_attack": ("06_transfer_attack", _TICKET),
    "robustness": ("07_robustness", _TICKET),
}


def expand(study: Study, job: Job) -> list[Spec]:
    """The records that a job makes.

    Args:
        study: the job's study.
        job: the job.

    Returns:
        Their descriptions, in the order in which they are made.
    """
    if job.kind == "pretrain":
        if job.dataset:
            return [surrogate(study, job.dataset)]
        return [theta(study, job.pretraining, job.theta_seed)]
    if job.kind == "prune":
        masks = [
            mask(study, job.pretraining, job.method, rounds, job.theta_seed, job.mask_seed)
            for rounds in job.rounds
        ]
        return [m for m in masks if m is not None]
    curve = (job.pretraining, job.method, job.dataset, job.fraction, job.regime)
    seeds = {name: getattr(job, name) for name in ("theta_seed", "mask_seed", "subset_seed")}
    tickets = [
        transfer(study, *curve, rounds, seed, **seeds)
        for rounds, seed in product(job.rounds, job.seeds)
    ]
    if job.kind == "landscape":
        kept = [ticket.model_copy(update={"keep": "trajectory"}) for ticket in tickets]
        return [
            spec
            for ticket, images in product(kept, job.images)
            for spec in _landscape(study, ticket, images)
        ]
    if job.kind == "transfer_attack":
        unseen = surrogate(study, job.dataset)
        return [specs.AttackSpec(transfer=_with_weights(t), surrogate=unseen) for t in tickets]
    if job.kind == "robustness":
        return [robustness(study, _with_weights(ticket)) for ticket in tickets]
    return [*tickets]


def robustness(study: Study, ticket: specs.TransferSpec) -> specs.RobustnessSpec:
    """The strong attacks of a study on a transferred ticket.

    Args:
        study: the study, whose `strong_attacks` count.
        ticket: a transfer that keeps its weights.

    Returns:
        Their description.
    """
    return specs.RobustnessSpec(transfer=ticket, **study.strong_attacks.model_dump())


def _landscape(study: Study, ticket: specs.TransferSpec, images: Pictures) -> tuple[Spec, Spec]:
    """The surface around a ticket and its trajectory, on clean or attacked images."""
    grid = study.landscape
    shared = {"transfer": ticket, "images": images, "count": grid.count, "points": grid.points}
    surface = specs.SurfaceSpec(**shared, span=grid.span, seed=grid.seed)
    return surface, specs.TrajectorySpec(**shared)


def _with_weights(ticket: specs.TransferSpec) -> specs.TransferSpec:
    """The transfer, of which at least the selected weights are kept."""
    if ticket.keep == "trajectory":
        return ticket
    return ticket.model_copy(update={"keep": "selected"})


def jobs(study: Study) -> list[Job]:
    """Every job of the study in plan order.

    There is one for each (kind, pretraining, method, data set, fraction, regime, seeds of theta_p,
    mask and subset) and list of training seeds. The dense network, one for all methods and masks,
    goes with IMP-ST. Landscapes and attacks bring the transfers they need.

    Args:
        study: the study.

    Returns:
        Jobs that together make all its records, each after those that it builds on.
    """
    blocks = study.ticket_blocks()
    found: dict[Job, dict[int, set[int]]] = {}  # the seeds of each of its rounds

    def ask(job: Job) -> None:
        have = found.setdefault(job.model_copy(update={"rounds": (), "seeds": ()}), {})
        for r in job.rounds:
            have.setdefault(r, set()).update(job.seeds)

    prune_jobs = [job for block in (*blocks, *study.masks) for job in _prune_jobs(study, block)]
    for block in (*blocks, *study.masks):
        seeds = block.theta_seeds or (study.seed,)
        for pretraining, seed in product(block.pretraining, seeds):
            ask(Job(kind="pretrain", pretraining=pretraining, theta_seed=seed))
    for job in prune_jobs:  # a transplanted mask has a theta_p of its own
        ask(Job(kind="pretrain", pretraining=job.pretraining, theta_seed=job.theta_seed))
    for name in dict.fromkeys(name for block in study.transfer_attacks for name in block.dataset):
        ask(Job(kind="pretrain", pretraining="AT", dataset=name))
    for job in prune_jobs:
        ask(job)
    for block in blocks:
        for job in _ticket_jobs(study, block):
            kind = "transfer" if job.fraction == 1 else "data_efficiency"
            ask(job.model_copy(update={"kind": kind}))
    for kind, blocks in (
        ("landscape", study.landscapes),
        ("transfer_attack", study.transfer_attacks),
        ("robustness", study.robustness),
    ):
        for block in blocks:
            for job in _ticket_jobs(study, block):
                images = getattr(block, "images", ())
                ask(job.model_copy(update={"kind": kind, "images": images}))
    return [whole for job, asked in found.items() for whole in _by_seeds(job, asked)]


def _by_seeds(job: Job, asked: dict[int, set[int]]) -> Iterator[Job]:
    """Rounds with the same seeds make one job.

    A job is a product, and must not ask for more than the study does.
    """
    if not asked:
        yield job
    together: dict[tuple[int, ...], list[int]] = {}
    for rounds, seeds in sorted(asked.items()):
        together.setdefault(tuple(sorted(seeds)), []).append(rounds)
    for seeds, rounds in together.items():
        yield job.model_copy(update={"rounds": tuple(rounds), "seeds": seeds})


def _prune_jobs(study: Study, block: Masks) -> Iterator[Job]:
    """The ladders of masks that a block needs, up to its deepest level, each after its own."""
    ladder = tuple(range(1, max(block.rounds) + 1))
    for pretraining, method in product(block.pretraining, block.method) if ladder else ():
        seeds = _seeds(study, block, method)
        for theta_seed, mask_seed in product(seeds["theta_seeds"], seeds["mask_seeds"]):
            job = Job(
                kind="prune",
                pretraining=pretraining,
                method=found_by(method),
                rounds=ladder,
                theta_seed=theta_seed + (method == specs.TRANSPLANTED),
                mask_seed=mask_seed,
            )
            yield job
            if method == specs.SHUFFLED:
                yield job.model_copy(update={"method": specs.SHUFFLED})


def _ticket_jobs(study: Study, block: Grid) -> Iterator[Job]:
    """The transfers of a block, a job per curve; those of the dense network are IMP-ST's."""
    sparse = tuple(rounds for rounds in block.rounds if rounds != DENSE)
    with_dense = DENSE in block.rounds or block in study.grid
    seeds = _seeds(study, block, "IMP-ST")
    for pretraining, name, fraction, regime, theta_seed, subset_seed in product(
        block.pretraining,
        block.dataset,
        block.fraction,
        block.regime,
        seeds["theta_seeds"],
        seeds["subset_seeds"],
    ):
        dense = Job(
            kind="transfer",
            pretraining=pretraining,
            dataset=name,
            fraction=fraction,
            regime=regime,
            rounds=(DENSE,),
            seeds=_dense_seeds(block),
            theta_seed=theta_seed,
            mask_seed=study.mask_seed,
            subset_seed=subset_seed,
        )
        if with_dense:
            yield dense
        for method in block.method if sparse else ():
            for mask_seed in _seeds(study, block, method)["mask_seeds"]:
                own = {"method": method, "mask_seed": mask_seed}
                yield dense.model_copy(update={**own, "rounds": sparse, "seeds": block.seeds})


def plan(study: Study) -> dict[str, Spec]:
    """Every record that a study asks for, and those that they build on.

    Args:
        study: the study.

    Returns:
        Descriptions by id, each after the records it builds on.
    """
    return specs.with_upstream(spec for job in jobs(study) for spec in expand(study, job))
