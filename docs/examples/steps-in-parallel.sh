#!/bin/bash
#SBATCH --job-name=many
#SBATCH --ntasks=4
#SBATCH --time=1:00:00
# Four at a time; the next starts when one ends.
for input in inputs/*; do
    srun -n1 --exact --output="$input.out" ./work "$input" &
done
wait
