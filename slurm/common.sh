# shellcheck shell=bash
# What the scripts of this folder share. They source it; it is not submitted itself.
#
#   run_verb VERB [OVERRIDES]   one step: hpc-llm VERB, one task per GPU; requeues the job after 75
#   preflight [OVERRIDES]       one step: hpc-llm preflight; requeues without the nodes it finds bad

# ---- what a site changes: here for everybody, or with `export` before sbatch for one job --------
# A file to source first: module load ..., proxies, NCCL_*; stays out of this repository.
HPC_LLM_SETUP=${HPC_LLM_SETUP:-}
# The environment of Python: its folder, .venv where sbatch was called, or what is on PATH.
HPC_LLM_VENV=${HPC_LLM_VENV:-}
# Or a container that has hpc-llm: image.sif for Apptainer (Singularity), or an image for pyxis,
# as in HPC_LLM_PYXIS=nvcr.io#nvidia/pytorch:25.06-py3; and more options for either.
HPC_LLM_CONTAINER=${HPC_LLM_CONTAINER:-}
HPC_LLM_PYXIS=${HPC_LLM_PYXIS:-}
HPC_LLM_CONTAINER_OPTIONS=${HPC_LLM_CONTAINER_OPTIONS:-}
# 1: try the nodes out before adapt and train, and start again without those that are bad.
HPC_LLM_PREFLIGHT=${HPC_LLM_PREFLIGHT:-0}
# A folder for one log of each rank; empty: all ranks write to the job's log.
HPC_LLM_RANK_LOGS=${HPC_LLM_RANK_LOGS:-}
# Restarts after which a script no longer requeues.
HPC_LLM_MAX_REQUEUES=${HPC_LLM_MAX_REQUEUES:-20}
# (The network's variables are those of cluster=NAME, cluster.environment; what is exported wins.)
# Compute nodes without internet: fetch models and data on the login node first.
# export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME=/shared/file/system/huggingface
# -----------------------------------------------------------------------------------------------

fail() { # MESSAGE: the input is wrong; 2 as hpc-llm itself gives then
    echo "$script: $1" >&2
    exit 2
}

if [ -n "$HPC_LLM_SETUP" ]; then
    [ -f "$HPC_LLM_SETUP" ] || fail "HPC_LLM_SETUP=$HPC_LLM_SETUP: is not there; name a file"
    set +u # modules read variables that may not be set
    # shellcheck disable=SC1090
    . "$HPC_LLM_SETUP" || fail "HPC_LLM_SETUP=$HPC_LLM_SETUP: failed with exit code $?"
    set -u
fi

# How hpc-llm is called, and options of srun for it.
program=(hpc-llm)
step=()
read -ra more <<< "$HPC_LLM_CONTAINER_OPTIONS"
if [ -n "$HPC_LLM_CONTAINER" ] && [ -n "$HPC_LLM_PYXIS" ]; then
    fail "HPC_LLM_CONTAINER and HPC_LLM_PYXIS: are two containers; unset one of them"
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
        fail "HPC_LLM_VENV=$venv: no bin/activate there; name the folder of a virtual environment"
    fi
    command -v hpc-llm > /dev/null ||
        fail "hpc-llm: neither in $venv nor on PATH; set HPC_LLM_VENV to its virtual environment"
fi

# The signal before the time limit ends a Python that does not listen yet. Held back (env of coreutils
# 8.31 or later) it is there when Python does; else it is ignored.
if [ -n "$HPC_LLM_PYXIS" ]; then
    held=() # who knows what is in the container
elif env --block-signal=USR1 true 2> /dev/null; then
    held=(env --block-signal=USR1,USR2)
else
    held=(bash -c 'trap "" USR1 USR2; exec "$@"' bash)
fi

# One task per GPU. On whole nodes --gpus-per-node alone will do; on shared nodes Slurm gives one
# core unless told how many tasks and cores.
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
    gpus=$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))
    cure="add --ntasks-per-node=$SLURM_GPUS_ON_NODE --cpus-per-task=CORES to sbatch"
    if [ -z "${SLURM_NTASKS:-}" ]; then
        cores=$((SLURM_GPUS_ON_NODE * ${SLURM_CPUS_PER_TASK:-1}))
        [ "$cores" -le "$SLURM_CPUS_ON_NODE" ] ||
            fail "$SLURM_CPUS_ON_NODE cores on a node: its tasks need $cores; $cure"
        step+=("--ntasks=$gpus" "--ntasks-per-node=$SLURM_GPUS_ON_NODE")
    elif [ "$SLURM_NTASKS" -ne "$gpus" ]; then
        fail "$SLURM_NTASKS tasks for $gpus GPUs: must be equal; $cure"
    fi
fi
if [ -n "$HPC_LLM_RANK_LOGS" ]; then
    mkdir -p "$HPC_LLM_RANK_LOGS"
    step+=("--output=$HPC_LLM_RANK_LOGS/%x-%j-%t.out" --open-mode=append)
fi

# Since Slurm 22.05 srun does not take over --cpus-per-task: the ranks would share one core.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi
# Without it every rank starts a thread for each core of the node.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
# DeepSpeed compiles what it needs, for the GPU and processor it finds, under a lock that stays when
# the job is killed and that every later one then waits for. So each start has a folder of its own.
# Not in /tmp, where others could put a library under a name they guess.
if [ -z "${TORCH_EXTENSIONS_DIR:-}" ]; then
    TORCH_EXTENSIONS_DIR=$SLURM_SUBMIT_DIR/.torch_extensions-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
    export TORCH_EXTENSIONS_DIR
    trap remove_compiled EXIT
fi
remove_compiled() { # of this start and those before it; where this one is left over, not of later ones
    local start
    for ((start = 0; start <= ${SLURM_RESTART_COUNT:-0}; start++)); do
        rm -rf "$SLURM_SUBMIT_DIR/.torch_extensions-$SLURM_JOB_ID-$start"
    done
}
# The log shows lines when they are printed.
export PYTHONUNBUFFERED=1
# MASTER_ADDR and MASTER_PORT are not set here: each rank derives them from its step (first node;
# job id and number of the restart). Set them before sbatch to meet over another network.

requeue() { # DONE: what has been done, and what is left to the user where Slurm does not requeue
    local restarts=${SLURM_RESTART_COUNT:-0}
    if [ "$restarts" -ge "$HPC_LLM_MAX_REQUEUES" ]; then
        echo "$script: not requeued: $restarts restarts," \
            "HPC_LLM_MAX_REQUEUES=$HPC_LLM_MAX_REQUEUES; submit again to go on" >&2
        return 1
    fi
    # Requeueing ends this shell, which has something left to say and to do.
    trap '' TERM
    if ! scontrol requeue "$SLURM_JOB_ID"; then
        echo "$script: $1, but this node cannot requeue; submit again to go on" >&2
        return 1
    fi
    echo "$script: $1 and requeued, restart $((restarts + 1)) of at most $HPC_LLM_MAX_REQUEUES"
}

run_verb() { # VERB [OVERRIDES]
    # --kill-on-bad-exit: one dead rank ends the job at once; else the others wait in a collective
    #   until the time limit.
    # --wait=0: a rank that is done may leave early while the first one evaluates and reports; a
    #   site's WaitTime would end the job then.
    # "$@": spaces, quotes and = in an override reach hpc-llm as they were typed.
    local code=0
    srun "${step[@]}" --kill-on-bad-exit=1 --wait=0 "${held[@]}" "${program[@]}" "$@" ||
        code=$?
    # 75: the run stopped in good order and has more to do. Slurm itself does not restart what
    # reaches its time limit, --requeue or not. And not without end: a run that stops at once each
    # time, as one with a time limit under five minutes does, would else go on for ever.
    [ "$code" -ne 75 ] || requeue saved || true
    [ "$code" -eq 0 ] || exit "$code"
}

preflight() { # [OVERRIDES]
    # A rank that crashes or hangs is to be named by the others, so it does not end them at once;
    # two minutes after the first rank is done it does.
    local code=0 bad=""
    export HPC_LLM_EXCLUDE_FILE=$SLURM_SUBMIT_DIR/.preflight-$SLURM_JOB_ID
    rm -f "$HPC_LLM_EXCLUDE_FILE"
    srun "${step[@]}" --kill-on-bad-exit=0 --wait=120 "${program[@]}" preflight "$@" || code=$?
    [ "$code" -ne 0 ] || return 0
    # The code alone does not tell: that of a rank which was killed hides the 4 of the first one.
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
    # Slurm changes the list of a job that waits, not of one that runs.
    if requeue "leaving out $nodes"; then
        scontrol update "JobId=$SLURM_JOB_ID" "ExcNodeList=$nodes" ||
            echo "$script: $nodes could not be excluded; the next preflight tries again" >&2
    fi
}
