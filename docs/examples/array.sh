#!/bin/bash
#SBATCH --job-name=sweep
#SBATCH --array=0-15%4
#SBATCH --gres=gpu:1
#SBATCH --output=sweep_%A_%a.out
rates=(1e-2 3e-3 1e-3 3e-4)
srun python train.py --rate "${rates[SLURM_ARRAY_TASK_ID % 4]}" --seed $((SLURM_ARRAY_TASK_ID / 4))
