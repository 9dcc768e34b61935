"""What frameworks conclude from a step's environment, by rules written anew from what each reads.

One line per framework: its name, global rank, world size, local rank, node rank, coordinator. "none" where the
framework decides that it does not run under Slurm.
"""

import os
import re
import socket
import subprocess
import sys

env = os.environ


def first_host(nodes):
    """The first name of a nodelist as programs without a hostlist library find it."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    return found.group(1) + (found.group(2) or "")


def lightning():
    """PyTorch Lightning: not in a shell that somebody types into, and then only with the tasks per node said."""
    if env.get("SLURM_JOB_NAME") in ("bash", "interactive") or "SLURM_NTASKS" not in env:
        return None
    size = int(env["SLURM_NTASKS"])
    if size > 1 and "SLURM_NTASKS_PER_NODE" not in env:
        return None
    port = 15000 + int(env["SLURM_JOB_ID"][-4:])
    host = first_host(env["SLURM_NODELIST"])
    return env["SLURM_PROCID"], size, env["SLURM_LOCALID"], env["SLURM_NODEID"], host, port


def jax():
    """jax.distributed: every name must be there, the step's own nodes rather than the job's."""
    needed = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID", "STEP_NUM_NODES")
    if any(f"SLURM_{name}" not in env for name in needed):
        return None
    port = 61440 + int(env["SLURM_JOB_ID"]) % 4096
    host = first_host(env["SLURM_STEP_NODELIST"])
    return env["SLURM_PROCID"], int(env["SLURM_NTASKS"]), env["SLURM_LOCALID"], env["SLURM_NODEID"], host, port


def torch():
    """torch's env:// from Slurm's names, the recipe of many sites; accelerate and DeepSpeed read its outcome."""
    if "SLURM_PROCID" not in env:
        return None
    shown = subprocess.run(["scontrol", "show", "hostnames", env["SLURM_JOB_NODELIST"]], check=True, capture_output=True)
    host = shown.stdout.decode().split()[0]
    port = 10000 + int(env["SLURM_JOB_ID"][-4:])
    return env["SLURM_PROCID"], int(env["SLURM_NTASKS"]), env["SLURM_LOCALID"], env["SLURM_NODEID"], host, port


for rule in (lightning, jax, torch):
    place = rule()
    if place is None:
        print(rule.__name__, "none", flush=True)
        continue
    host = place[4]
    if "--resolve" in sys.argv:
        host = socket.gethostbyname(host)
    sys.stdout.write(f"{rule.__name__} {' '.join(str(word) for word in place[:4])} {host}:{place[5]}\n")
    sys.stdout.flush()
