#!/bin/bash
#SBATCH --job-name=single
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=1:00:00
srun python train.py
