#!/bin/bash
#SBATCH --job-name=accelerate
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=16
#SBATCH --time=8:00:00
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export head port=$((20000 + SLURM_JOB_ID % 10000))
# In single quotes: each node fills in its own number.
srun --kill-on-bad-exit=1 bash -c 'exec accelerate launch --multi_gpu \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes $((SLURM_NNODES * SLURM_GPUS_ON_NODE)) \
    --main_process_ip "$head" --main_process_port "$port" train.py'
