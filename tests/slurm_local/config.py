"""Configuration of a private Slurm: loopback only, everything in one folder, several nodes on one host.

What is needed for that was found by trial on Slurm 22.05 to 24.11; the reasons stand beside the settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    nodes: int = 6  # a heterogeneous job wants other nodes for each component
    cpus: int = 8  # that each node pretends to have
    gpus: int = 4  # clones of /dev/null
    port: int = 26800  # slurmctld; slurmd from port + 10, srun from port + 100; below the ephemeral range


def slurm_conf(folder: Path, shape: Shape, plugins: Path, host: str, user: str) -> str:
    last, half = shape.nodes - 1, shape.nodes // 2
    everywhere = f"n[0-{last}]"
    return f"""\
ClusterName=ornith
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={shape.port}
SrunPortRange={shape.port + 100}-{shape.port + 999}
# One address for all: with addresses of their own, an srun on a node would listen on that one only, and connections
# over the loopback come from 127.0.0.1.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=60
InactiveLimit=0
KillWait=5
CompleteWait=0
UnkillableStepTimeout=60
# Finished jobs stay visible to the tests.
MinJobAge=7200
JobRequeue=1
# Only the backfill scheduler starts heterogeneous jobs, every 30 s by default.
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=1000000,batch_sched_delay=0,bf_min_age_reserve=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
NodeName={everywhere} NodeAddr=127.0.0.1 Port=[{shape.port + 10}-{shape.port + 10 + last}] CPUs={shape.cpus} \
RealMemory=16000 Gres=gpu:{shape.gpus} State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=cpu Nodes=n[{half}-{last}] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=spot Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
"""


def gres_conf(folder: Path, shape: Shape) -> str:
    return f"NodeName=n[0-{shape.nodes - 1}] Name=gpu File={folder}/dev/gpu[0-{shape.gpus - 1}]\n"


def hosts(shape: Shape, host: str) -> str:
    """/etc/hosts of a node: names resolve, as they must on a cluster."""
    return f"127.0.0.1 localhost {host}\n" + "".join(f"127.0.0.1 n{i}\n" for i in range(shape.nodes))
