#!/usr/bin/env bash
# Start a private, throw-away Slurm cluster on this one machine: no systemd, no containers, nothing
# under /etc or /var; as root or as an ordinary user.
#
#   start.sh DIR [NODES=2] [CPUS_PER_NODE=4] [GPUS_PER_NODE=2]
#   . DIR/env.sh; sinfo; sbatch ...; stop.sh DIR
#
# DIR must be short: unix sockets lie in it, and their names may have 107 characters.
# environment:
#   SLURM_CLUSTER_PORT        first of 300 ports used (default 30000)
#   SLURM_CLUSTER_ACCOUNTING  auto | db | none   (db: private MariaDB and slurmdbd, gives sacct)
#   SLURM_CLUSTER_HOSTS       auto | uts | plain (uts: every node has its own hostname, and a name
#                             that resolves, in a mount and UTS namespace of its own; needs root)
#   SLURM_CLUSTER_SPARE       nodes that Slurm does not see before DIR/start_node.sh node3 (default 1)
# Debian packages: slurm-wlm munge [slurmdbd mariadb-server]
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin   # the daemons; ordinary users often lack these

DIR=${1:?usage: start.sh DIR [NODES] [CPUS] [GPUS]}
NODES=${2:-2}; CPUS=${3:-4}; GPUS=${4:-2}
BASE=${SLURM_CLUSTER_PORT:-30000}
ACC=${SLURM_CLUSTER_ACCOUNTING:-auto}
HOSTS=${SLURM_CLUSTER_HOSTS:-auto}
ALL=$((NODES + ${SLURM_CLUSTER_SPARE:-1}))
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ME=$(id -un); HOST=$(hostname -s)
[ "$ACC" = auto ] && { command -v mariadbd >/dev/null && command -v slurmdbd >/dev/null && ACC=db || ACC=none; }
[ "$HOSTS" = auto ] && { unshare --mount --uts true 2>/dev/null && HOSTS=uts || HOSTS=plain; }

mkdir -p "$DIR"; DIR=$(cd "$DIR" && pwd)
mkdir -p "$DIR"/{munge,state,log,pid,spool,dev}
chmod 755 "$DIR"; chmod 711 "$DIR/munge"

# ---- munge with its own key and socket ---------------------------------------------------------
[ -f "$DIR/munge/key" ] || (umask 077; head -c 1024 /dev/urandom > "$DIR/munge/key")
munged --key-file="$DIR/munge/key" --socket="$DIR/munge/sock" --pid-file="$DIR/pid/munged.pid" \
       --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge/seed" --num-threads=4

# ---- configuration -----------------------------------------------------------------------------
NODELIST="node[1-$ALL]"
GRES=; [ "$GPUS" -gt 0 ] && GRES="Gres=gpu:$GPUS"
node_addr() { if [ "$HOSTS" = uts ]; then echo "127.0.7.$1"; else echo 127.0.0.1; fi; }
{
  sed -e "s#@DIR@#$DIR#g" -e "s#@USER@#$ME#g" -e "s#@HOST@#$HOST#g" -e "s#@CTL_PORT@#$BASE#g" \
      -e "s#@SRUN@#$((BASE + 100))-$((BASE + 299))#g" -e "s#@FIRST@#$(( $(date +%s) % 60000 * 100 + 1 ))#g" "$HERE/slurm.conf.in"
  if [ "$ACC" = db ]; then
    echo "AccountingStorageType=accounting_storage/slurmdbd"
    echo "AccountingStorageHost=127.0.0.1"
    echo "AccountingStoragePort=$((BASE + 1))"
    echo "AccountingStoragePass=$DIR/munge/sock"   # with munge this field is the socket path
    echo "AccountingStorageTRES=gres/gpu"
    echo "AccountingStorageEnforce=associations"   # an account that does not exist is refused
  else
    echo "AccountingStorageType=accounting_storage/none"
  fi
  for i in $(seq 1 "$ALL"); do
    nh=$HOST; [ "$HOSTS" = uts ] && nh=node$i
    state=; [ "$i" -gt "$NODES" ] && state="State=FUTURE Weight=10"   # taken after the others
    echo "NodeName=node$i NodeHostname=$nh NodeAddr=$(node_addr "$i") Port=$((BASE + 10 + i))" \
         "Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 CPUs=$CPUS RealMemory=8000 $GRES $state"
  done
  echo "PartitionName=main Nodes=$NODELIST Default=YES MaxTime=1:00:00 DefaultTime=10 PriorityTier=10  PreemptMode=off"
  echo "PartitionName=low  Nodes=$NODELIST             MaxTime=1:00:00 DefaultTime=10 PriorityTier=1   PreemptMode=requeue"
  echo "PartitionName=high Nodes=$NODELIST             MaxTime=1:00:00 DefaultTime=10 PriorityTier=100 PreemptMode=off"
} > "$DIR/slurm.conf"
# fake GPUs: slurmd wants a character device per GPU; as root clone /dev/null, else borrow harmless devices
: > "$DIR/gres.conf"
spare=(/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx)
for g in $(seq 0 $((GPUS - 1))); do
  dev="$DIR/dev/fakegpu$g"
  [ -c "$dev" ] || mknod "$dev" c 1 3 2>/dev/null || dev=${spare[$g]}
  echo "NodeName=$NODELIST Name=gpu File=$dev" >> "$DIR/gres.conf"
done
echo 'CgroupAutomount=no' > "$DIR/cgroup.conf"; : > "$DIR/plugstack.conf"; chmod 644 "$DIR"/*.conf
echo "export SLURM_CONF='$DIR/slurm.conf'" > "$DIR/env.sh"
export SLURM_CONF="$DIR/slurm.conf"
if [ "$HOSTS" = uts ]; then
  { cat /etc/hosts; echo; for i in $(seq 1 "$ALL"); do echo "$(node_addr "$i") node$i"; done; } > "$DIR/hosts"
fi

# ---- daemons -----------------------------------------------------------------------------------
[ "$ACC" = db ] && "$HERE/start_accounting.sh" "$DIR" "$((BASE + 2))" "$((BASE + 1))"
slurmctld -c
cat > "$DIR/start_node.sh" <<E
#!/bin/bash
# start_node.sh NODENAME: start one node of this cluster
export SLURM_CONF='$DIR/slurm.conf'; mkdir -p '$DIR/spool/'\$1 '$DIR/tmp/'\$1
if [ $HOSTS = uts ]; then
  exec unshare --mount --uts sh -c 'mount --bind "$DIR/hosts" /etc/hosts; hostname "\$1"; exec slurmd -N "\$1"' sh "\$1"
fi
exec slurmd -N "\$1"
E
chmod +x "$DIR/start_node.sh"
for i in $(seq 1 "$NODES"); do "$DIR/start_node.sh" "node$i"; done

# ---- wait until every node is idle ---------------------------------------------------------------
for _ in $(seq 1 300); do
  [ "$(sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l)" -eq "$NODES" ] && exit 0
  sleep 0.1
done
echo "start.sh: nodes did not come up" >&2; sinfo >&2 || true
for f in "$DIR"/log/*.log; do echo "== $f"; tail -n 20 "$f"; done >&2
exit 1
