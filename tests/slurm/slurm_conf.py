"""The files that Slurm's daemons read: one controller and two nodes, all on this machine."""

import os
import socket
from pathlib import Path

NODES = ("n1", "n2")
"""n1 has four cores; n2 has the same and two make-believe GPUs."""
KILL_WAIT_S = 5
"""Between SIGTERM and SIGKILL at a time limit and at `scancel`."""
GRACE_S = 10
"""Between the signal of a preemption and its end, in the partition `low`, at least; see below."""
SLURMD_TIMEOUT_S = 30
"""A node that is silent for this long is DOWN; busy machines are silent for seconds."""

# Waiting is as short as Slurm allows. What no setting shortens: the controller looks at time limits only every 30 s,
# counted from its own start. It gives the signal of `--signal=...@N` at the first look that is N + 30 s or less before
# the end, and ends a job, or the grace time of a preempted one, at the first look after it. So the shortest life that
# ends by its time limit has --time=1, the smallest limit: with N of 30 to 59 the signal comes 0 to 30 s after the
# start, with N = 15 it comes 15 to 45 s after it. A job that requeues itself at the signal then lives once in 30 s:
# 24 s of life, 6 s of waiting. `scontrol update JobId=J EndTime=now+20` moves the end of a running job.
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
# Listen on 127.0.0.1 alone.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start when its old credential has run out, 6 s after the requeue. Below 5 Slurm takes its 120.
AuthInfo=socket={base}/munge/socket,cred_expire=5
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
MailProg=/bin/true
# Neither cgroups nor systemd nor an accounting database.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Heterogeneous jobs are started by backfill alone; with its usual resolution of 60 s a requeued one waits 20 s.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_resolution=1,bf_hetjob_immediate
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
MpiDefault=none
GresTypes=gpu
KillWait={kill_wait_s}
OverTimeLimit=0
MessageTimeout=60
SlurmdTimeout={slurmd_timeout_s}
# Finished jobs can be asked for until the cluster is gone.
MinJobAge=86400
FirstJobId={first_job}
ReturnToService=2
# The cores below are a promise to the scheduler, not those of this machine.
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=4 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000
NodeName=n1 NodeAddr=127.0.0.1 Port={ports[n1]} Feature=cpu
NodeName=n2 NodeAddr=127.0.0.1 Port={ports[n2]} Feature=gpu Gres=gpu:fake:2
PartitionName=DEFAULT MaxTime=01:00:00 DefaultTime=00:10:00 DefMemPerCPU=200 PreemptMode=OFF PriorityTier=10
PartitionName=debug Nodes=ALL Default=YES
PartitionName=cpu Nodes=n1
PartitionName=gpu Nodes=n2
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_s}
PartitionName=high Nodes=ALL PriorityTier=20
"""


def write_files(base: Path, controller_port: int, ports: dict[str, int]) -> None:
    """Write everything that the daemons expect below `base`.

    Args:
        base: Folder of the cluster.
        controller_port: Port of slurmctld.
        ports: Port of each node's slurmd.
    """
    for folder in ("etc", "jobs", "log", "munge", "nodelocal", "state", *(f"nodelocal.{name}" for name in NODES)):
        (base / folder).mkdir()
    for name in NODES:
        (base / "spool" / name).mkdir(parents=True)
    (base / "munge").chmod(0o711)  # munged wants its socket in reach of everybody
    key = base / "munge/key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    host = socket.gethostname()
    (base / "etc/hosts").write_text(f"127.0.0.1 localhost {host} {' '.join(NODES)}\n")
    for number in (0, 1):
        os.mknod(base / f"etc/gpu{number}", 0o20666, os.makedev(1, 3))  # a null device that bears the name
    (base / "gres.conf").write_text(f"NodeName=n2 Name=gpu Type=fake File={base}/etc/gpu[0-1]\n")
    # Two nodes with one /tmp would fight over PMIx's folder of a job.
    (base / "mpi.conf").write_text(f"PMIxCliTmpDirBase={base}/nodelocal\n")
    (base / "slurm.conf").write_text(
        _CONF.format(
            host=host,
            base=base,
            controller_port=controller_port,
            ports=ports,
            # Job scripts derive ports from the job's number: clusters side by side number differently.
            first_job=120 * (controller_port % 100) + 1,
            kill_wait_s=KILL_WAIT_S,
            grace_s=GRACE_S,
            slurmd_timeout_s=SLURMD_TIMEOUT_S,
        )
    )
