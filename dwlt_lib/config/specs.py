"""What a record is: one frozen, fully resolved description per kind, its upstream records, its id.

A description holds everything that its result depends on; the id is a hash of that and of the
upstream ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from math import ceil, log
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, model_validator

from dwlt_lib.config.datasets import NOT_IDENTITY, DataSet, Frozen, Sha256
from dwlt_lib.config.network_names import canonical
from dwlt_lib.config.recipes import PGD, Positive, Regime, StrongAttacks, TrainingConfig

Pretraining = Literal["STD", "FAT", "AT"]
Method = Literal[
    "IMP-ST",
    "IMP-AT",
    "OMP",
    "RP",
    "IMP-ST-2of4",
    "OMP-2of4",
    "IMP-ST-channel",
    "OMP-channel",
    "SNIP",
    "GraSP",
    "SynFlow",
    "IMP-ST-LR",
    "IMP-ST-shuffled",
    "IMP-ST-reinit",
    "IMP-ST-transplant",
]
Pictures = Literal["clean", "attacked"]
Arch = Annotated[str, AfterValidator(canonical)]
Natural = Annotated[int, Field(ge=0)]
UNKNOWN = 64 * "0"  # a sha256 that nobody has seen yet: ids that depend on it are provisional

PAPER_METHODS: tuple[Method, ...] = ("IMP-ST", "IMP-AT", "OMP", "RP")
"""Those of Figure 4."""
TWO_OF_FOUR: tuple[Method, ...] = ("IMP-ST-2of4", "OMP-2of4")
"""They keep two of every four weights (Mishra et al. 2021): one level, 50 % by definition."""
CHANNELS: tuple[Method, ...] = ("IMP-ST-channel", "OMP-channel")
"""They prune whole output channels (Li et al. 2017)."""
SCORED: tuple[Method, ...] = ("SNIP", "GraSP")
"""They score weights by the loss on source images (Lee et al. 2019, Wang et al. 2020)."""
SYNFLOW: Method = "SynFlow"
"""It scores weights by the network's flow, without images (Tanaka et al. 2020)."""
LR_REWINDING: Method = "IMP-ST-LR"
"""IMP-ST whose rounds go on from the weights of the last one: the learning rate is rewound, the
weights are not (Renda et al. 2020)."""
OTHER_METHODS = (*TWO_OF_FOUR, *CHANNELS, *SCORED, SYNFLOW, LR_REWINDING)
"""Masks of the field that the paper does not have."""
SHUFFLED: Method = "IMP-ST-shuffled"
"""Control: IMP-ST's mask shuffled within each layer, which is random pruning with IMP-ST's layer
densities. What it keeps of IMP-ST's accuracy, the densities explain."""
REINITIALIZED: Method = "IMP-ST-reinit"
"""Control: IMP-ST's mask on weights drawn anew (Frankle & Carbin 2019, section 2)."""
TRANSPLANTED: Method = "IMP-ST-transplant"
"""Control: IMP-ST's mask found from the theta_p of the next seed."""
CONTROLS = (SHUFFLED, REINITIALIZED, TRANSPLANTED)

UNSEEDED: tuple[Method, ...] = ("OMP", "OMP-2of4", "OMP-channel", SYNFLOW)
"""They draw nothing, so that there is one mask."""

PRUNE_FRACTION = 0.2  # of the remaining weights, each round (section 3)

# theta_p is trained so (section 3)
REGIME_OF: dict[Pretraining, Regime] = {"STD": "ST", "FAT": "FAT", "AT": "AT"}

# rises when the results of a kind would change
FORMAT = {
    "pretraining": 4,
    "mask": 3,
    "transfer": 5,
    "surface": 3,
    "trajectory": 3,
    "attack": 4,
    "robustness": 3,
}


class WeightsFile(Frozen):
    """A file of `dwlt weights import`; in a study just its name will do."""

    file: Annotated[str, Field(min_length=1)]
    """What `dwlt weights import` wrote, absolute or beneath DWLT_DATA/weights."""
    theta: Sha256 | None = None
    """The sha256 of its tensors, as that command prints it, which the file must have; left out:
    whatever it has."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class PretrainingSpec(Frozen):
    """theta_p: a network trained from scratch on `data`.

    Also the unseen robust model of a transfer attack.
    """

    kind: Literal["pretraining"] = "pretraining"
    pretraining: Pretraining
    """p: STD, FAT or AT."""
    arch: Arch
    """The network."""
    data: DataSet
    """The source; of an unseen robust model, the downstream data set."""
    recipe: TrainingConfig
    """How it is trained."""
    evaluation: PGD
    """The adversary of RA."""
    ra: Literal["last", "any"] = "last"
    """Whether RA_any, right at every step of the attack, is measured beside RA ("any")."""
    seed: Natural
    """Of the initialisation, the order of images and the attacks' starts."""


class ImportedSpec(Frozen):
    """theta_p as a file of `dwlt weights import` has it, trained by others on `data`.

    Nothing of it is measured.
    """

    kind: Literal["pretraining"] = "pretraining"
    pretraining: Pretraining
    """p: STD, FAT or AT."""
    arch: Arch
    """The network."""
    data: DataSet
    """The source."""
    evaluation: PGD
    """The adversary that networks on `data` are evaluated by."""
    theta: Sha256
    """The sha256 of its tensors (models.tensors.fingerprint), UNKNOWN while the file is not
    there."""
    file: str
    """Where it is found, which is no part of its identity."""


class MaskSpec(Frozen):
    """m after `rounds` rounds (1 or more) of a method, drawn from theta_p on its own data.

    IMP-ST-shuffled is the mask of the same description but method IMP-ST, shuffled by `seed`.
    """

    kind: Literal["mask"] = "mask"
    theta: PretrainingSpec | ImportedSpec
    """theta_p, whose weights are pruned."""
    method: Method
    """How m is found."""
    rounds: Positive
    """Rounds of pruning, which say how sparse m is (`sparsity`)."""
    prune_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Share of the remaining weights that each round prunes."""
    retrain: TrainingConfig | None
    """IMP's training on the source between rounds; None where there is none."""
    seed: Natural
    """Of that training, of the random choice or of `images`; 0 for OMP and SynFlow, which draw
    nothing."""
    images: Natural = 0
    """How many source images SNIP and GraSP score weights on, drawn by `seed`."""

    @property
    def sparsity(self) -> float:
        """The share of pruned weights that is asked for, in [0, 1]."""
        return sparsity_of_level(self.method, self.rounds, self.prune_fraction)


class TransferSpec(Frozen):
    """(theta_p, m) trained on a downstream task."""

    kind: Literal["transfer"] = "transfer"
    theta: PretrainingSpec | ImportedSpec
    """theta_p."""
    mask: MaskSpec | None
    """m, drawn from theta, or in a transplant from the theta_p of another seed; None is the dense
    network (rounds 0)."""
    weights: Literal["theta_p", "reinitialized"] = "theta_p"
    """Which ones it starts from: theta's, or a new initialisation drawn from `seed`."""
    data: DataSet
    """The downstream data set."""
    fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of its training images."""
    subset_rule: Literal["stratified", "first_n"]
    """How that share is drawn: equal shares of each class, or the first images of the file."""
    subset_seed: Natural
    """Of that draw."""
    regime: Regime
    """How the ticket is trained: ST, FAT or AT."""
    recipe: TrainingConfig
    """The training's settings."""
    evaluation: PGD
    """The adversary of RA."""
    ra: Literal["last", "any"] = "last"
    """Whether RA_any, right at every step of the attack, is measured beside RA ("any")."""
    seed: Natural
    """Of the head, the order of images and the attacks' starts."""
    keep: Literal["none", "selected", "trajectory"]
    """Which weights stay on disk, decided by what a study draws from them: none, those of the epoch
    that counts, or those of every epoch."""


class SurfaceSpec(Frozen):
    """Loss over a filter-normalised plane through a transferred ticket."""

    kind: Literal["surface"] = "surface"
    transfer: TransferSpec
    """The ticket, at the plane's centre."""
    images: Pictures
    """Test images as they are, or attacked."""
    count: Positive
    """How many of the first test images."""
    points: Annotated[int, Field(ge=3)]
    """Along each axis, an odd number."""
    span: Annotated[float, Field(gt=0)]
    """The plane reaches from -span to span, in filter norms."""
    seed: Natural
    """Of the two random directions."""


class TrajectorySpec(Frozen):
    """A transfer's path in the plane of its own two PCA directions, and the loss over it."""

    kind: Literal["trajectory"] = "trajectory"
    transfer: TransferSpec
    """The training whose path it is; it keeps the weights of every epoch."""
    images: Pictures
    """Test images as they are, or attacked."""
    count: Positive
    """How many of the first test images."""
    points: Annotated[int, Field(ge=3)]
    """Along each axis."""


class AttackSpec(Frozen):
    """Accuracy of a transferred ticket on images attacked through a robust model it never saw."""

    kind: Literal["attack"] = "attack"
    transfer: TransferSpec
    """The ticket; it keeps its weights."""
    surrogate: PretrainingSpec
    """The unseen robust model, on the same data set."""


class RobustnessSpec(StrongAttacks):
    """Robustness of a transferred ticket under strong attacks, and signs of masked gradients."""

    kind: Literal["robustness"] = "robustness"
    transfer: TransferSpec
    """The ticket; it keeps its weights."""


Spec = (
    PretrainingSpec
    | ImportedSpec
    | MaskSpec
    | TransferSpec
    | SurfaceSpec
    | TrajectorySpec
    | AttackSpec
    | RobustnessSpec
)


def upstream(spec: Spec) -> tuple[Spec, ...]:
    """The records that must exist before this one can be made.

    Args:
        spec: the description of a record.

    Returns:
        The descriptions of those that it is made of directly.
    """
    if isinstance(spec, MaskSpec):
        if spec.method == SHUFFLED:
            return spec.theta, unshuffled(spec)
        if retrains(spec):
            return spec.theta, spec.model_copy(update={"rounds": spec.rounds - 1})
        return (spec.theta,)
    if isinstance(spec, TransferSpec):
        return (spec.theta,) if spec.mask is None else (spec.theta, spec.mask)
    if isinstance(spec, AttackSpec):
        return spec.transfer, spec.surrogate
    return () if isinstance(spec, PretrainingSpec | ImportedSpec) else (spec.transfer,)


def with_upstream(specs: Iterable[Spec]) -> dict[str, Spec]:
    """These records and all that they build on.

    Args:
        specs: descriptions of records.

    Returns:
        Descriptions by id, in this order, but each after the records it builds on.
    """
    found: dict[str, Spec] = {}

    def add(spec: Spec) -> None:
        if record_id(spec) not in found:
            for up in upstream(spec):
                add(up)
            found[record_id(spec)] = spec

    for spec in specs:
        add(spec)
    return found


def unshuffled(spec: MaskSpec) -> MaskSpec:
    """The mask of IMP-ST that a shuffled one has the layer densities of.

    Args:
        spec: the description of the shuffled mask.

    Returns:
        The description of the other.
    """
    return spec.model_copy(update={"method": "IMP-ST"})


def retrains(spec: Spec) -> bool:
    """Whether this record is a mask that training on the source precedes.

    Args:
        spec: the description of any record.

    Returns:
        False for the first round, which prunes theta_p before any training.
    """
    if not isinstance(spec, MaskSpec) or spec.method == SHUFFLED:
        return False
    return spec.retrain is not None and spec.rounds > 1


def micro_batches(spec: Spec) -> int:
    """In how many micro-batches a batch of this record's training goes through the network.

    Args:
        spec: the description of any record.

    Returns:
        1 where it goes whole; 0 where nothing is trained.
    """
    config = spec.retrain if isinstance(spec, MaskSpec) else getattr(spec, "recipe", None)
    if config is None or (isinstance(spec, MaskSpec) and not retrains(spec)):
        return 0
    return ceil(config.batch / (config.micro_batch_size or config.batch))


def reads(spec: Spec) -> tuple[tuple[DataSet, str], ...]:
    """The images that making this record alone looks at.

    Args:
        spec: the description of the record.

    Returns:
        Pairs (data set, "train" or "test").
    """
    if isinstance(spec, MaskSpec):
        if spec.images:
            return ((spec.theta.data, "train"),)
        return ((spec.theta.data, "train"), (spec.theta.data, "test")) if retrains(spec) else ()
    if isinstance(spec, PretrainingSpec | TransferSpec):
        return (spec.data, "train"), (spec.data, "test")
    return () if isinstance(spec, ImportedSpec) else ((spec.transfer.data, "test"),)


def record_id(spec: Spec) -> str:
    """The id of a record: 20 hexadecimal digits of a sha256.

    It covers the kind, its FORMAT, the resolved description, the fingerprints of the images that
    making it reads, and the upstream ids. While images have not been seen (UNKNOWN) it is
    provisional.

    Args:
        spec: the description of the record.

    Returns:
        The id.
    """
    return _record_id(cast(Any, spec))  # frozen, so it has a hash, which type checkers do not see


@cache
def _record_id(spec: Spec) -> str:
    own = {
        name: value
        for name, value in spec.model_dump(mode="json").items()
        if not isinstance(getattr(spec, name), Spec) and name != "file"
    }
    if "data" in own:
        own["data"] = {key: value for key, value in own["data"].items() if key not in NOT_IDENTITY}
        if not own["data"]["distinct"]:
            del own["data"]["distinct"]  # it came after the first records
    if own.get("images") == 0:
        del own["images"]  # of masks by scores, which came later
    if own.get("weights") == "theta_p":
        del own["weights"]  # what all transfers began from when the first records were made
    for name in ("recipe", "retrain"):
        if own.get(name):
            # the field's name when the first records were made, whose ids stay
            own[name]["at_once"] = own[name].pop("micro_batch_size")
            for later in ("linear_probe_epochs", "eps_warmup"):  # settings that came after them
                if not own[name][later]:
                    del own[name][later]
    seen = [[row.name, split, row.fingerprint(split) or UNKNOWN] for row, split in reads(spec)]
    content = [spec.kind, FORMAT[spec.kind], own, seen, [record_id(up) for up in upstream(spec)]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def ladder(rounds: Any, prune_fraction: float = PRUNE_FRACTION) -> Any:
    """Sparsity 1 - (1 - prune_fraction)^rounds; in the paper 1 - 0.8^rounds (section 3).

    Args:
        rounds: number of pruning rounds, or an array or a column of them.
        prune_fraction: the share of the remaining weights that each round prunes, in (0, 1).

    Returns:
        The share of pruned weights, of the shape of `rounds`.
    """
    return 1 - (1 - prune_fraction) ** rounds


def level_of_half(prune_fraction: float) -> int:
    """The rounds of the ladder's level nearest to 50 %, at which the masks of `TWO_OF_FOUR` are.

    Args:
        prune_fraction: the share of the remaining weights that each round prunes, in (0, 1).

    Returns:
        1 or more; 3 in the paper, where that level is 48.8 %.
    """
    return max(1, round(log(0.5) / log(1 - prune_fraction)))


def sparsity_of_level(method: str, rounds: int, prune_fraction: float) -> float:
    """The sparsity of a method after some rounds.

    Args:
        method: how masks are found.
        rounds: of pruning; 0 is the dense network.
        prune_fraction: the share of the remaining weights that each round prunes, in (0, 1).

    Returns:
        In [0, 1]: 0.5 at the level of `TWO_OF_FOUR`, else that of `ladder`.
    """
    if method in TWO_OF_FOUR and rounds == level_of_half(prune_fraction):
        return 0.5
    return ladder(rounds, prune_fraction)


def method_of(spec: TransferSpec) -> str:
    """How the ticket's mask was found, or which control it is.

    Args:
        spec: the description of a transfer.

    Returns:
        The column `method` of tables; "dense" without a mask.
    """
    if spec.mask is None:
        return "dense"
    if spec.weights == "reinitialized":
        return REINITIALIZED
    return spec.mask.method if spec.mask.theta == spec.theta else TRANSPLANTED


def theta_seed(spec: MaskSpec | TransferSpec) -> int:
    """The seed of theta_p.

    Args:
        spec: the description of a mask or of a transfer.

    Returns:
        The seed; 0 where theta_p comes from a file, which does not tell.
    """
    return spec.theta.seed if isinstance(spec.theta, PretrainingSpec) else 0


def columns(spec: Spec) -> dict[str, Any]:
    """The row of a description in tables, by the paper's names.

    Args:
        spec: the description of a record.

    Returns:
        Values by column; sparsity is what was asked for.
    """
    if isinstance(spec, PretrainingSpec | ImportedSpec):
        row = {"pretraining": spec.pretraining, "dataset": spec.data.name, "arch": spec.arch}
        if isinstance(spec, ImportedSpec):
            return {**row, "theta": spec.theta[:12]}
        return {**row, "seed": spec.seed, "epochs": spec.recipe.epochs}
    if isinstance(spec, MaskSpec):
        return {
            "pretraining": spec.theta.pretraining,
            "method": spec.method,
            "dataset": spec.theta.data.name,
            "rounds": spec.rounds,
            "sparsity": spec.sparsity,
            "seed": spec.seed,
            "theta_seed": theta_seed(spec),
        }
    if isinstance(spec, TransferSpec):
        mask = spec.mask
        return {
            "pretraining": spec.theta.pretraining,
            "method": method_of(spec),
            "dataset": spec.data.name,
            "fraction": spec.fraction,
            "regime": spec.regime,
            "rounds": mask.rounds if mask else 0,
            "sparsity": mask.sparsity if mask else 0.0,
            "seed": spec.seed,
            "theta_seed": theta_seed(spec),
            "mask_seed": mask.seed if mask else 0,
            "subset_seed": spec.subset_seed,
            "arch": spec.theta.arch,
            "epochs": spec.recipe.epochs,
        }
    row = columns(spec.transfer)
    del row["epochs"]
    if isinstance(spec, AttackSpec):
        other = spec.surrogate
        row["surrogate"] = (
            f"{other.arch}, {other.pretraining} on {other.data.name}, seed {other.seed}"
        )
    elif isinstance(spec, SurfaceSpec | TrajectorySpec):
        row["images"] = spec.images
    return row


def label(spec: Spec) -> str:
    """What a record is, for people.

    Args:
        spec: its description.

    Returns:
        One short line.
    """
    row = columns(spec)
    if isinstance(spec, PretrainingSpec | ImportedSpec):
        theta = f"pretraining {row['pretraining']} {row['arch']} on {row['dataset']}"
        if isinstance(spec, PretrainingSpec):
            return f"{theta}, seed {spec.seed}"
        which = "not there yet" if spec.theta == UNKNOWN else row["theta"]
        return f"{theta}, imported ({which})"
    ticket = f"{row['pretraining']} {row.get('method')} {100 * row['sparsity']:.1f} %"
    if isinstance(spec, MaskSpec):
        seeds = other_seeds({"theta_seed": row["theta_seed"], "mask_seed": row["seed"]})
        return f"mask {ticket}{seeds}"
    task = f"{row['dataset']} {100 * row['fraction']:g} % {row['regime']}"
    seeds = f"seed {row['seed']}{other_seeds(row)}"
    images = f", {row['images']}" if "images" in row else ""
    return f"{spec.kind} {ticket} on {task}, {seeds}{images}"


def other_seeds(row: Mapping[str, Any]) -> str:
    """The seeds of theta_p, mask and subset that are not 0, for a label.

    Args:
        row: theta_seed, mask_seed and subset_seed, as far as there are any.

    Returns:
        Such as ", theta seed 1, mask seed 2"; empty if all are 0.
    """
    seeds = {name: row.get(name) or 0 for name in ("theta_seed", "mask_seed", "subset_seed")}
    return "".join(f", {name.replace('_', ' ')} {seed:g}" for name, seed in seeds.items() if seed)
