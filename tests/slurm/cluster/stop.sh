#!/usr/bin/env bash
# Stop a cluster that start.sh started, by the pids it recorded. Never by name.
set -u
DIR=$(cd "${1:?usage: stop.sh DIR}" && pwd)
export SLURM_CONF="$DIR/slurm.conf"

alive() {   # running and not a zombie (pid 1 of a container may reap late)
  local s; s=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 1
  [ -n "$s" ] && [ "${s%% *}" != Z ]
}
wait_gone() { for _ in $(seq 1 "$2"); do alive "$1" || return 0; sleep 0.05; done; return 1; }

# 1. cancel everything, so that no slurmstepd stays behind
if timeout 5 scontrol ping >/dev/null 2>&1; then
  scancel --user="$(id -un)" 2>/dev/null
  for _ in $(seq 1 60); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
fi
# 2. TERM in order, then wait
for f in "$DIR"/pid/slurmd.*.pid "$DIR"/pid/{slurmctld,slurmdbd,mariadb,munged}.pid; do
  [ -s "$f" ] || continue
  p=$(cat "$f")
  if kill -TERM "$p" 2>/dev/null; then wait_gone "$p" 300 || kill -KILL "$p"; fi
  rm -f "$f"
done
# 3. job steps that outlived their slurmd: they keep a file below DIR open (log, spool or socket)
for p in /proc/[0-9]*; do
  [ "$(cat "$p/comm" 2>/dev/null)" = slurmstepd ] || continue
  if ls -l "$p/fd" "$p/cwd" 2>/dev/null | grep -qF -- "$DIR/"; then kill -KILL "${p#/proc/}" 2>/dev/null; fi
done
exit 0
