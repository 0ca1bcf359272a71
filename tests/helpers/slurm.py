"""A SLURM of one node on this machine, with its own configuration, ports and state."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SlurmUser=root
SlurmdUser=root
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName=localhost CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def running_slurm(folder):
    """Start the daemons (munged, slurmctld, slurmd of Debian's slurm-wlm), and point sbatch and the rest at them."""
    lacking = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if _program(name) is None]
    if lacking or os.getuid() != 0:
        pytest.skip(f"a private SLURM needs root and the programs of slurm-wlm; missing: {lacking or 'root'}")
    for name in ("spool", "state", "munge"):
        (folder / name).mkdir(parents=True)
    for above in (folder, *folder.parents[:-1]):
        above.chmod(0o755)  # munge requires directories that others can enter
    text = CONFIGURATION.format(folder=folder, ports=_free_ports(2))
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    commands = [
        ["munged", "-F", f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge/pid",
         f"--seed-file={folder}/munge/seed", f"--log-file={folder}/munge/log"],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "localhost"],
    ]  # fmt: skip
    daemons = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                whole = [_program(command[0]), *command[1:]]
                daemons.append(subprocess.Popen(whole, env=environment, stdout=out, stderr=out))
            time.sleep(1.0)
        if not _idle(environment):
            logs = "; ".join((folder / f"{command[0]}.out").read_text()[-300:] for command in commands)
            pytest.skip(f"SLURM does not start here: {logs}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", environment["SLURM_CONF"])
            yield
    finally:
        subprocess.run(
            [_program("scancel"), "--user=root", "--full"], env=environment, check=False, capture_output=True
        )
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def _program(name):
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def _free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for server in sockets:
        server.bind(("127.0.0.1", 0))
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _idle(environment):
    for _ in range(30):
        done = subprocess.run(
            [_program("sinfo"), "-h", "-o", "%t"], env=environment, capture_output=True, text=True, check=False
        )
        if done.stdout.strip().startswith("idle"):
            return True
        time.sleep(0.5)
    return False


def queue():
    """List the jobs of the queue as lines of id, state and directory."""
    return subprocess.run(
        [_program("squeue"), "-h", "-o", "%i %t %Z"], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def cancel(*jobs):
    subprocess.run([_program("scancel"), *jobs], check=True)


__all__ = ["Path", "cancel", "queue", "running_slurm"]
