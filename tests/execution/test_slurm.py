"""On a real Slurm, started here: an array finishes a study, whatever happens to its elements."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import FAULTS
from test_end_to_end import TINY

from dwlt_lib.config.planning import plan
from dwlt_lib.config.sites import SlurmSite
from dwlt_lib.execution import runner, submission
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import leases, store

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
pytestmark = [
    pytest.mark.skipif(not FAULTS, reason="minutes: make test-faults"),
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0,
        reason="needs Slurm and munge (Debian's slurm-wlm), and root",
    ),
]
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ReturnToService=2
SlurmdTimeout=10
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[16821-16822] CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A controller and two nodes, all on this machine's loopback."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}
        (folder / "state").mkdir()
        (folder / "cgroup").mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        host = subprocess.check_output(["hostname", "-s"], text=True).strip()
        text = CONFIGURATION.format(host=host, folder=folder)
        (folder / "slurm.conf").write_text(text, encoding="utf-8")
        text = f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={folder}/cgroup\n"
        (folder / "cgroup.conf").write_text(text, encoding="utf-8")
        places = [f"--{name}={folder}/{file}" for name, file in self.MUNGE.items()]
        self.start("munged", "munged", "--foreground", "--force", *places)
        while not (folder / "munge.sock").exists():
            time.sleep(0.1)
        self.start("slurmctld", "slurmctld", "-i", "-D")
        for node in ("n1", "n2"):
            self.start_node(node)

    MUNGE = {
        "key-file": "key",
        "socket": "munge.sock",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "seed",
    }

    def start(self, name, *command):
        output = open(self.folder / f"{name}.out", "ab")  # noqa: SIM115
        self.running[name] = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )

    def start_node(self, node):
        self.start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node):
        """The node's daemon and all jobs on it are gone at once."""
        jobs = [
            one
            for one in psutil.process_iter(["cmdline", "environ"])
            if (one.info["environ"] or {}).get("SLURMD_NODENAME") == node
            or "slurmstepd" in " ".join(one.info["cmdline"] or [])
            and node in " ".join(one.info["cmdline"])
        ]
        self.running.pop(node).kill()
        for one in jobs:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        return len(jobs)

    def ask(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout

    def jobs(self):
        """{element: (state, node)} of those that have not ended."""
        lines = self.ask("squeue", "-r", "-h", "-o", "%i %T %N").splitlines()
        parts = [line.split() for line in lines]
        return {each[0]: (each[1], each[2] if len(each) > 2 else "") for each in parts}

    def stop(self):
        self.ask("scancel", "-s", "KILL", "-u", "root")
        for process in reversed(self.running.values()):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    found = Cluster(tmp_path)
    yield found
    found.stop()


def wait_for(is_so, seconds=180):
    late = time.time() + seconds
    while not is_so():
        assert time.time() < late
        time.sleep(0.5)


def test_an_array_finishes_a_study_though_an_element_is_preempted_and_a_node_dies(
    cluster, tmp_path, monkeypatch
):
    study = read_study(TINY)
    specs = plan(study).values()
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "here"))
    assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.DONE
    expected = store.results_of(specs)
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("DWLT_OUTPUTS", str(outputs))
    store.study_dir(study.name).mkdir(parents=True)
    wait_for(lambda: cluster.ask("sinfo", "-h", "-o", "%T").split() == ["idle"])
    site = SlurmSite(
        engine="slurm", tasks=4, gpus=0, cpus=1, setup=["export OMP_NUM_THREADS=1"], walltime="1h"
    )
    assert submission.submit(site, study, TINY, print) == 0
    wait_for(lambda: leases.holders(store.leases_root()))

    (element, (_, node)) = next(iter(cluster.jobs().items()))
    cluster.ask("scancel", "--signal=TERM", "--batch", element)
    wait_for(lambda: cluster.jobs().get(element, ("",))[0] == "PENDING")
    log = (store.study_dir(study.name) / f"slurm-{element}.out").read_text(encoding="utf-8")
    assert "interrupted; the same command goes on from here" in log

    other = next(name for name in ("n1", "n2") if name != node)
    hit = [each for each, (state, where) in cluster.jobs().items() if where == other]
    assert cluster.kill_node(other) > 0
    wait_for(lambda: all(cluster.jobs().get(each, ("",))[0] in ("PENDING", "") for each in hit))
    cluster.start_node(other)

    def is_over():
        for each, (state, _) in cluster.jobs().items():
            if state == "PENDING":  # Slurm lets what is requeued wait for two minutes
                cluster.ask("scontrol", "update", f"JobId={each}", "StartTime=now")
        return not cluster.jobs()

    wait_for(is_over, 900)
    assert store.results_of(specs) == expected
    assert store.verify() == [] and list(store.leases_root().iterdir()) == []
    assert Path(store.study_dir(study.name) / "report.html").exists()
