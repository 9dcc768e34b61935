"""A block of one node through the Slurm provider and the srun launcher."""

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider

provider = SlurmProvider(
    "main", nodes_per_block=2, init_blocks=1, max_blocks=1, walltime="00:05:00",
    launcher=SrunLauncher(), exclusive=False, cores_per_node=2,
)
executor = HighThroughputExecutor(label="blocks", address="127.0.0.1", max_workers_per_node=1, provider=provider)


@parsl.python_app
def where(n):
    import os
    import time

    time.sleep(0.5)
    return n, os.environ["SLURMD_NODENAME"]


with parsl.load(Config(executors=[executor], strategy="none")):
    found = [future.result() for future in [where(n) for n in range(8)]]
assert [n for n, _ in found] == list(range(8)), found
assert len({node for _, node in found}) == 2, found
