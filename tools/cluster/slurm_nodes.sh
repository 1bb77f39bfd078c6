#!/bin/bash
# SLURM: one training on several nodes, a torchrun a node, a process a GPU. Copy, edit, submit from
# the checkout, which all nodes see as they see OUTPUT_DIR:
#
#   sbatch --nodes=8 slurm_nodes.sh --config-file configs/COCO-Detection/EA-DKD-R18-R101.yaml \
#       --epochs 12 SOLVER.IMS_PER_BATCH 64
#
# A classifier: train_classifier.py below; a language model: train_lm.py.
#SBATCH --job-name=ea-kd
#SBATCH --nodes=2 --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300            # seconds before the time limit: more than an evaluation takes
#SBATCH --output=%x-%j.log --open-mode=append

PYTHON=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=4
# Seconds that torchrun leaves its processes for a checkpoint; older versions of torch leave them 30.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
# export NCCL_SOCKET_IFNAME=ib0        # network, where a node has several
# export NCCL_IB_HCA=mlx5              # adapters of the gradients
# export NCCL_DEBUG=INFO               # prints what NCCL has chosen

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs that share a node have their own

# SLURM signals this shell alone (B:). It sends on SIGTERM, which torchrun passes to its processes.
stopped=no
# shellcheck disable=SC2317
stop() {
    stopped=yes
    scancel --signal=TERM "$SLURM_JOB_ID.0"
}
trap stop USR1

srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    "$PYTHON" -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$head:$port" --rdzv-id "$SLURM_JOB_ID" \
    tools/train_net.py --resume "$@" &
training=$!
wait $training
code=$?
if [ $stopped = yes ]; then # the signal has ended the first `wait`
    wait $training
    code=$?
    [ $code = 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
