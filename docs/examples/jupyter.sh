#!/bin/bash
#SBATCH --job-name=jupyter
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=4:00:00
#SBATCH --output=jupyter-%j.out
# The output holds the notebook's token: submit from a directory that only you can read.
node=$(hostname)
port=$((20000 + SLURM_JOB_ID % 10000))
echo "On your own machine: ssh -N -L $port:$node:$port $USER@$SLURM_SUBMIT_HOST"
echo "Then open http://localhost:$port with the token that Jupyter prints below."
srun jupyter notebook --no-browser --ip="$node" --port="$port"
