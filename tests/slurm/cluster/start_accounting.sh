#!/usr/bin/env bash
# start_accounting.sh DIR DB_PORT DBD_PORT: private MariaDB and slurmdbd, so that sacct works.
# Called by start.sh.
set -euo pipefail
DIR=$1; DB_PORT=$2; DBD_PORT=$3; ME=$(id -un)
mkdir -p "$DIR/db"
SOCK="$DIR/db/m.sock"
cat > "$DIR/db/my.cnf" <<E
[mysqld]
datadir=$DIR/db/data
socket=$SOCK
pid-file=$DIR/pid/mariadb.pid
log-error=$DIR/log/mariadb.log
bind-address=127.0.0.1
port=$DB_PORT
user=$ME
tmpdir=$DIR/db
innodb_buffer_pool_size=32M
innodb_log_file_size=16M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=0
performance_schema=OFF
skip-name-resolve
skip-log-bin
E
if [ ! -d "$DIR/db/data/mysql" ]; then
  mariadb-install-db --defaults-file="$DIR/db/my.cnf" --user="$ME" \
      --auth-root-authentication-method=socket --skip-test-db > "$DIR/log/mariadb-install.log" 2>&1
fi
setsid mariadbd --defaults-file="$DIR/db/my.cnf" > /dev/null 2>&1 < /dev/null &
for _ in $(seq 1 200); do mariadb-admin --no-defaults -S "$SOCK" ping >/dev/null 2>&1 && break; sleep 0.05; done
mariadb --no-defaults -S "$SOCK" -e "create database if not exists slurm_acct_db;
  create user if not exists 'slurm'@'127.0.0.1' identified by 'private';
  grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';"
(umask 077; cat > "$DIR/slurmdbd.conf" <<E
AuthType=auth/munge
AuthInfo=$DIR/munge/sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=$ME
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/pid/slurmdbd.pid
PluginDir=$(dirname "$(readlink -f "$(find /usr/lib -name accounting_storage_slurmdbd.so 2>/dev/null | head -1)")")
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$DB_PORT
StorageUser=slurm
StoragePass=private
StorageLoc=slurm_acct_db
E
)
# slurmdbd looks for slurmdbd.conf next to $SLURM_CONF
SLURM_CONF="$DIR/slurm.conf" slurmdbd
for _ in $(seq 1 20); do SLURM_CONF="$DIR/slurm.conf" timeout 2 sacctmgr -n -i show cluster >/dev/null 2>&1 && break; sleep 0.05; done
admin() { SLURM_CONF="$DIR/slurm.conf" timeout 10 sacctmgr -i -Q "$@" > /dev/null; }
admin add cluster testing
admin add account lab
admin add user "$(id -un)" account=lab
