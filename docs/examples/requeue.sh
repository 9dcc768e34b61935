#!/bin/bash
#SBATCH --job-name=long
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
# Two minutes before the limit the training is asked to save, and the job goes back into the queue.
again() {
    kill -USR1 "$step"
    wait "$step"
    scontrol requeue "$SLURM_JOB_ID"
}
trap again USR1
echo "start number $((${SLURM_RESTART_COUNT:-0} + 1))"
srun python train.py --resume checkpoint &
step=$!
wait "$step"
