"""A site file is validated like a study: the shipped ones are read, others refused in one line."""

import pytest

from dwlt_lib.config.sites import ENGINES, read_site
from dwlt_lib.config.yaml_text import BadStudy
from dwlt_lib.records import store

SITES = sorted((store.checkout() / "params" / "sites").glob("*.yaml"))


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_a_shipped_site_is_read_as_the_class_of_its_engine(path):
    site = read_site(path)
    assert type(site) is ENGINES[site.engine]


def test_there_is_a_shipped_site_for_every_engine():
    assert {read_site(path).engine for path in SITES} == set(ENGINES)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no setting; want a mapping"),
        ("workers: 2", "engine=None: want one of local, dask, slurm, kubernetes, ssh"),
        ("\nengine: pbs", ":2: engine='pbs': want one of local, dask, slurm, kubernetes, ssh"),
        ("engine: [local]", "engine=['local']: want one of local, dask, slurm, kubernetes, ssh"),
        ("engine: local\nworkers: 0", ":2: workers=0: input should be greater than or equal to 1"),
        ("engine: local\nworker: 2", ":2: worker: no such setting"),
        ("engine: slurm\nwalltime: 2d", ":2: walltime: '2d': want a time such as 90s, 9m or 2h"),
        ("engine: slurm\nwalltime: 15m", "margin=15m: want less than walltime=15m"),
        ('engine: slurm\nsetup: ["a\\nb"]', "holds the control character"),
        ("engine: kubernetes\nvolume: v", "image is missing; set it"),
        ("engine: ssh\nhosts: []", ":2: hosts=[]: list should have at least 1 item"),
        ("engine: dask", "want either scheduler, an address, or cluster, a class of Dask"),
        ("engine: dask\ncluster: LocalCluster\nscheduler: tcp://h:1", "want either scheduler"),
        ("engine: dask\ncluster: os.system", ":2: cluster='os.system': input should be"),
    ],
)
def test_a_bad_site_is_refused_in_one_line_that_names_the_place(text, line, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(f"{text}\n", encoding="utf-8")
    with pytest.raises(BadStudy) as refusal:
        read_site(path)
    said = str(refusal.value)
    assert said.startswith(str(path)) and line in said and "\n" not in said
