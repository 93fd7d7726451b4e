# shellcheck shell=bash
# Functions shared by the scripts in this folder, which source it; do not submit it.
#
#   run_verb VERB [OVERRIDES]   one step: hpc-llm VERB, one task per GPU; requeues the job after 75
#   preflight [OVERRIDES]       one step: hpc-llm preflight; requeues the job without bad nodes

# ---- site settings: edit here for all users, or `export` before sbatch for one job ---------------
# A file to source first: module load ..., proxies, NCCL_*; keep it out of this repository.
HPC_LLM_SETUP=${HPC_LLM_SETUP:-}
# Folder of the virtual environment; default: .venv where sbatch was called, else hpc-llm on PATH.
HPC_LLM_VENV=${HPC_LLM_VENV:-}
# Or a container with hpc-llm in it: image.sif for Apptainer (Singularity), or an image for pyxis,
# as in HPC_LLM_PYXIS=nvcr.io#nvidia/pytorch:25.06-py3; and more options for either.
HPC_LLM_CONTAINER=${HPC_LLM_CONTAINER:-}
HPC_LLM_PYXIS=${HPC_LLM_PYXIS:-}
HPC_LLM_CONTAINER_OPTIONS=${HPC_LLM_CONTAINER_OPTIONS:-}
# 1: test the nodes before adapt and train, and requeue without bad ones.
HPC_LLM_PREFLIGHT=${HPC_LLM_PREFLIGHT:-0}
# A folder for one log per rank; empty: all ranks write to the job's log.
HPC_LLM_RANK_LOGS=${HPC_LLM_RANK_LOGS:-}
# Restarts after which a script no longer requeues.
HPC_LLM_MAX_REQUEUES=${HPC_LLM_MAX_REQUEUES:-20}
# (cluster=NAME sets the network variables in cluster.environment; exported ones take precedence.)
# Compute nodes without internet: fetch models and data on the login node first.
# export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME=/shared/file/system/huggingface
# -----------------------------------------------------------------------------------------------

fail() { # MESSAGE: wrong input; exit code 2, as for hpc-llm
    echo "$script: $1" >&2
    exit 2
}

if [ -n "$HPC_LLM_SETUP" ]; then
    [ -f "$HPC_LLM_SETUP" ] || fail "HPC_LLM_SETUP=$HPC_LLM_SETUP: no such file"
    set +u # modules read variables that may not be set
    # shellcheck disable=SC1090
    . "$HPC_LLM_SETUP" || fail "HPC_LLM_SETUP=$HPC_LLM_SETUP: failed with exit code $?"
    set -u
fi

# The hpc-llm command, and options of srun for it.
program=(hpc-llm)
step=()
read -ra more <<< "$HPC_LLM_CONTAINER_OPTIONS"
if [ -n "$HPC_LLM_CONTAINER" ] && [ -n "$HPC_LLM_PYXIS" ]; then
    fail "HPC_LLM_CONTAINER and HPC_LLM_PYXIS: two containers are set; unset one of them"
elif [ -n "$HPC_LLM_CONTAINER" ]; then
    apptainer=$(command -v apptainer || command -v singularity) ||
        fail "HPC_LLM_CONTAINER=$HPC_LLM_CONTAINER: no apptainer on PATH; load it in HPC_LLM_SETUP"
    gpus=()
    [ -z "${SLURM_GPUS_ON_NODE:-}" ] || gpus=(--nv)
    program=("$apptainer" exec "${gpus[@]}" --bind "$SLURM_SUBMIT_DIR" "${more[@]}"
        "$HPC_LLM_CONTAINER" hpc-llm)
elif [ -n "$HPC_LLM_PYXIS" ]; then
    step=(--container-image="$HPC_LLM_PYXIS" --container-workdir="$SLURM_SUBMIT_DIR"
        --container-mounts="$SLURM_SUBMIT_DIR:$SLURM_SUBMIT_DIR" "${more[@]}")
else
    venv=${HPC_LLM_VENV:-$SLURM_SUBMIT_DIR/.venv}
    if [ -f "$venv/bin/activate" ]; then
        # shellcheck disable=SC1091
        . "$venv/bin/activate"
    elif [ -n "$HPC_LLM_VENV" ]; then
        fail "HPC_LLM_VENV=$venv: no bin/activate there; set the folder of a virtual environment"
    fi
    command -v hpc-llm > /dev/null ||
        fail "hpc-llm: neither in $venv nor on PATH; set HPC_LLM_VENV to its virtual environment"
fi

# The signal before the time limit would kill a Python process that has no handler yet. Blocked (by
# env of coreutils 8.31 or later) it stays pending until Python handles it; else it is ignored.
if [ -n "$HPC_LLM_PYXIS" ]; then
    held=() # the container may lack env and bash
elif env --block-signal=USR1 true 2> /dev/null; then
    held=(env --block-signal=USR1,USR2)
else
    held=(bash -c 'trap "" USR1 USR2; exec "$@"' bash)
fi

# One task per GPU. On whole nodes --gpus-per-node is enough; on shared nodes Slurm allocates one
# core unless the number of tasks and cores is set.
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
    gpus=$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))
    fix="add --ntasks-per-node=$SLURM_GPUS_ON_NODE --cpus-per-task=CORES to sbatch"
    if [ -z "${SLURM_NTASKS:-}" ]; then
        cores=$((SLURM_GPUS_ON_NODE * ${SLURM_CPUS_PER_TASK:-1}))
        [ "$cores" -le "$SLURM_CPUS_ON_NODE" ] ||
            fail "$SLURM_CPUS_ON_NODE cores on a node: its tasks need $cores; $fix"
        step+=("--ntasks=$gpus" "--ntasks-per-node=$SLURM_GPUS_ON_NODE")
    elif [ "$SLURM_NTASKS" -ne "$gpus" ]; then
        fail "$SLURM_NTASKS tasks for $gpus GPUs: must be equal; $fix"
    fi
fi
if [ -n "$HPC_LLM_RANK_LOGS" ]; then
    mkdir -p "$HPC_LLM_RANK_LOGS"
    step+=("--output=$HPC_LLM_RANK_LOGS/%x-%j-%t.out" --open-mode=append)
fi

# Since Slurm 22.05 srun does not inherit --cpus-per-task: the ranks would share one core.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi
# Else every rank starts one thread per core of the node.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
# DeepSpeed compiles extensions for the GPU and CPU it finds, under a lock file that remains when
# the job is killed, and for which later jobs wait. So each start has its own folder; not in /tmp,
# where other users could plant a library under a predictable name.
if [ -z "${TORCH_EXTENSIONS_DIR:-}" ]; then
    TORCH_EXTENSIONS_DIR=$SLURM_SUBMIT_DIR/.torch_extensions-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
    export TORCH_EXTENSIONS_DIR
    trap remove_compiled EXIT
fi
remove_compiled() { # of this start and earlier ones; not of later ones if this start is stale
    local start
    for ((start = 0; start <= ${SLURM_RESTART_COUNT:-0}; start++)); do
        rm -rf "$SLURM_SUBMIT_DIR/.torch_extensions-$SLURM_JOB_ID-$start"
    done
}
# Lines appear in the log as soon as they are printed.
export PYTHONUNBUFFERED=1
# Python imports nothing from the folder in which the job runs: others may write to it.
export PYTHONSAFEPATH=1
# MASTER_ADDR and MASTER_PORT are not set here: each rank derives them from its step (first node;
# job id and number of the restart). Set them before sbatch for a rendezvous over another network.

requeue() { # DONE: past participle for the message
    local restarts=${SLURM_RESTART_COUNT:-0}
    if [ "$restarts" -ge "$HPC_LLM_MAX_REQUEUES" ]; then
        echo "$script: not requeued: $restarts restarts," \
            "HPC_LLM_MAX_REQUEUES=$HPC_LLM_MAX_REQUEUES; resubmit to continue" >&2
        return 1
    fi
    # Requeueing sends SIGTERM to this shell, which still has work to do.
    trap '' TERM
    if ! scontrol requeue "$SLURM_JOB_ID"; then
        echo "$script: $1, but this node cannot requeue; resubmit to continue" >&2
        return 1
    fi
    echo "$script: $1 and requeued, restart $((restarts + 1)) of at most $HPC_LLM_MAX_REQUEUES"
}

run_verb() { # VERB [OVERRIDES]
    # --kill-on-bad-exit: one dead rank ends the job immediately; else the others wait in a
    #   collective until the time limit.
    # --wait=0: a finished rank may exit early while rank 0 evaluates and reports; a site's WaitTime
    #   would then end the job.
    # "$@": spaces, quotes and = in an override reach hpc-llm unchanged.
    local code=0
    srun "${step[@]}" --kill-on-bad-exit=1 --wait=0 "${held[@]}" "${program[@]}" "$@" ||
        code=$?
    # 75: the run stopped cleanly and is not finished. Slurm itself does not restart a job that
    # reaches its time limit, --requeue or not. Requeues are bounded: a run that stops immediately
    # at every start, such as one with a time limit under five minutes, would never end otherwise.
    [ "$code" -ne 75 ] || requeue saved || true
    [ "$code" -eq 0 ] || exit "$code"
}

preflight() { # [OVERRIDES]
    # A rank that crashes or hangs does not end the others at once, so that they can report it;
    # --wait ends them two minutes after the first rank has finished.
    local code=0 bad=""
    export HPC_LLM_EXCLUDE_FILE=$SLURM_SUBMIT_DIR/.preflight-$SLURM_JOB_ID
    rm -f "$HPC_LLM_EXCLUDE_FILE"
    srun "${step[@]}" --kill-on-bad-exit=0 --wait=120 "${program[@]}" preflight "$@" || code=$?
    [ "$code" -ne 0 ] || return 0
    # Do not rely on the exit code: that of a killed rank hides the 4 of rank 0.
    if [ -s "$HPC_LLM_EXCLUDE_FILE" ]; then
        bad=$(cat "$HPC_LLM_EXCLUDE_FILE")
        rm -f "$HPC_LLM_EXCLUDE_FILE"
        [ "$script" = preflight.sbatch ] || requeue_without "$bad"
    fi
    exit "$code"
}

requeue_without() { # NODES
    local nodes=$1 before
    before=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%x) || before=""
    case $before in "" | "(null)" | N/A) ;; *) nodes=$before,$nodes ;; esac
    # Slurm changes the exclude list of pending jobs only.
    if requeue "excluding $nodes"; then
        scontrol update "JobId=$SLURM_JOB_ID" "ExcNodeList=$nodes" ||
            echo "$script: $nodes could not be excluded; the next preflight tries again" >&2
    fi
}
