#!/bin/bash
#SBATCH --job-name=mpi
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=1:00:00
# Both launchers find the nodes by themselves and start their daemons through srun.
mpirun ./program
