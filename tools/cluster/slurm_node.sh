#!/bin/bash
# SLURM: one training on one node, a process a GPU. Copy, edit, submit from the checkout:
#
#   sbatch slurm_node.sh --config-file configs/COCO-Detection/EA-DKD-R18-R101.yaml
#
# A classifier: train_classifier.py below. OUTPUT_DIR must lie on a disk that every node sees, since
# a requeued job may start on another one.
#SBATCH --job-name=ea-kd
#SBATCH --nodes=1 --ntasks=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@300              # seconds before the time limit: more than an evaluation takes
#SBATCH --output=%x-%j.log --open-mode=append

PYTHON=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=4

srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    "$PYTHON" tools/train_net.py --num-gpus "$SLURM_GPUS_ON_NODE" --resume "$@"
code=$?
[ $code = 138 ] && scontrol requeue "$SLURM_JOB_ID" # ended by SIGUSR1, with a checkpoint
exit $code
