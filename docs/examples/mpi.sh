#!/bin/bash
#SBATCH --job-name=mpi
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=1:00:00
# Open MPI and what else speaks PMIx; for MPICH and Intel MPI: --mpi=pmi2.
srun --mpi=pmix ./program
# The launchers of both find the nodes by themselves and start their daemons through srun:
# mpirun ./program
