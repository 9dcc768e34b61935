"""A job, an array, and a job that is asked to stop, checkpoints itself and runs again."""

import subprocess
import time
from pathlib import Path

import submitit
from submitit.helpers import DelayedSubmission


def add(a, b):
    return a + b


class Counts:
    """Waits to be told to stop; its second life returns what the first left."""

    def __call__(self, told=None):
        if told is not None:
            return told
        Path("began").touch()
        time.sleep(120)
        return "was never told"

    def checkpoint(self, told=None):
        return DelayedSubmission(self, "came back")


executor = submitit.AutoExecutor(folder="logs", cluster="slurm")
executor.update_parameters(timeout_min=5, slurm_partition="main", cpus_per_task=1, mem_gb=1)
assert executor.submit(add, 1, 2).result() == 3

executor.update_parameters(slurm_array_parallelism=2)
jobs = executor.map_array(add, [1, 2, 3, 4], [10, 20, 30, 40])
assert [job.result() for job in jobs] == [11, 22, 33, 44]

job = executor.submit(Counts())
while not Path("began").exists():
    time.sleep(0.2)
time.sleep(1)
subprocess.check_call(["scancel", job.job_id, "--signal", "USR2"])
assert job.result() == "came back"
print("restarts:", subprocess.check_output(["sacct", "-n", "-D", "-X", "-o", "State", "-j", job.job_id], text=True))
