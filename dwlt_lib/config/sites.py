"""Where a study runs: a site file says which engine starts its workers, and with what.

Each class is one engine and its settings, which are validated like those of a study.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from dwlt_lib.config.datasets import Frozen
from dwlt_lib.config.durations import parse_duration
from dwlt_lib.config.parameter_file import first_error, read
from dwlt_lib.config.yaml_text import BadStudy, read_yaml

Count = Annotated[int, Field(ge=1, le=10_000)]
Line = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\n\r]+$")]


def _duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, AfterValidator(_duration)]
Device = Literal["auto", "cpu", "cuda"]


class LocalSite(Frozen):
    """Processes of this machine; `dwlt run` without a site file is this one."""

    engine: Literal["local"]
    """Processes of this machine."""
    workers: Count | None = None
    """How many notebooks run at a time; left out: one per core, or one per GPU."""
    device: Device = "auto"
    """Where to train."""


class DaskSite(Frozen):
    """Dask's distributed workers, each of which runs a notebook in a fresh process of its own.

    Either `scheduler` names one that is there, or `cluster` is started for the run.
    """

    engine: Literal["dask"]
    """Workers of Dask distributed (the extra `cluster`)."""
    scheduler: Line | None = None
    """Address of a scheduler that is there, such as tcp://10.0.0.1:8786."""
    cluster: Literal["LocalCluster", "SSHCluster", "KubeCluster"] | None = None
    """The class of Dask, or of dask-kubernetes, that starts scheduler and workers."""
    options: dict[str, Any] = {}
    """What that class is called with, such as n_workers or hosts."""
    device: Device = "auto"
    """Where to train; on cuda, a task asks Dask for the resource GPU: 1."""


class SlurmSite(Frozen):
    """An array of Slurm: each of its tasks is a `dwlt run` that puts itself back into the queue."""

    engine: Literal["slurm"]
    """`dwlt submit` hands an array to sbatch."""
    tasks: Count = 1
    """Elements of the array; each has the resources below."""
    walltime: Duration = "12h"
    """Limit of an element, such as 12h; it stops and asks for its place again before."""
    margin: Duration = "15m"
    """How long before the limit a run stops, of which an epoch may take a part."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per element; 0: it trains on processors."""
    cpus: Count = 8
    """Cores per element."""
    memory: Line | None = None
    """Memory per element as sbatch writes it, such as 64G; left out: the cluster's default."""
    directives: list[Line] = []
    """Further options of sbatch, such as --partition=gpu."""
    setup: list[Line] = []
    """Lines of shell before the run, such as module load."""


class KubernetesSite(Frozen):
    """An Indexed Job of Kubernetes: each of its pods is a `dwlt run` over one shared volume."""

    engine: Literal["kubernetes"]
    """`dwlt submit` hands a Job to kubectl."""
    image: Line
    """The container's image, such as that of .ci/Dockerfile; it holds the checkout."""
    volume: Line
    """A PersistentVolumeClaim that all pods may write; it is seen as /outputs."""
    data_volume: Line | None = None
    """A PersistentVolumeClaim with images, seen as /data; left out: images of the image's own."""
    pods: Count = 1
    """Pods of the Job; each has the resources below."""
    namespace: Line | None = None
    """Where the Job goes; left out: kubectl's own."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per pod (nvidia.com/gpu); 0: it trains on processors."""
    cpus: Count = 8
    """Cores per pod."""
    memory: Line = "32Gi"
    """Memory per pod as Kubernetes writes it; a half of it may be shared memory."""


class SshSite(Frozen):
    """Machines reached by ssh that see the same folders: one `dwlt run` each."""

    engine: Literal["ssh"]
    """`dwlt submit` starts ssh for each host and stays until all have ended."""
    hosts: Annotated[list[Line], Field(min_length=1)]
    """Names as ssh takes them; ssh must not ask for a password."""
    directory: Line | None = None
    """The checkout on those machines; left out: where it is here."""
    setup: list[Line] = []
    """Lines of shell before the run, such as export DWLT_DATA=/scratch/images."""
    device: Device = "auto"
    """Where to train."""


Site = LocalSite | DaskSite | SlurmSite | KubernetesSite | SshSite
ENGINES: dict[str, type[Site]] = {
    "local": LocalSite,
    "dask": DaskSite,
    "slurm": SlurmSite,
    "kubernetes": KubernetesSite,
    "ssh": SshSite,
}
"""The class of a site by its engine; `dwlt run` drives the first two, the others start it."""


def read_site(path: str | Path) -> Site:
    """The site that a file describes.

    Args:
        path: a YAML file such as params/sites/slurm.yaml.

    Returns:
        The site, of the class that its `engine` names.

    Raises:
        BadStudy: one line with the file, the line in it, what is wrong and the remedy.
    """
    source = read_yaml(read(path), str(path))
    engine = source.values.get("engine")
    if engine not in list(ENGINES):
        raise BadStudy(
            f"{source.place('engine')}: engine={engine!r}: want one of {', '.join(ENGINES)}"
        )
    try:
        site = ENGINES[engine].model_validate_json(json.dumps(source.values))
    except ValidationError as error:
        raise BadStudy(first_error(error, source)) from error
    if isinstance(site, DaskSite) and (site.scheduler is None) == (site.cluster is None):
        raise BadStudy(f"{path}: want either scheduler, an address, or cluster, a class of Dask")
    if isinstance(site, SlurmSite) and parse_duration(site.margin) >= parse_duration(site.walltime):
        raise BadStudy(
            f"{source.place('margin')}: margin={site.margin}: want less than"
            f" walltime={site.walltime}"
        )
    return site
