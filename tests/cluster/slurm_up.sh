#!/usr/bin/env bash
# slurm_up.sh [--db]  A private Slurm on this machine, for tests: munge, slurmctld, virtual nodes and, with --db, slurmdbd.
# As root (Debian or Ubuntu; missing packages are installed), without systemd. All state lies in $R; what starts is
# noted in $R/pids with its start time, and slurm_down.sh ends exactly that; who started it, in $R/owner. NODES (4) nodes of CPUS (2), GPUS (2) made of /dev/null, MEM (6000) MB.
set -euo pipefail
R=${R:-${TMPDIR:-/var/tmp}/orcolat-slurm} PORT=${PORT:-17300}
NODES=${NODES:-4} CPUS=${CPUS:-2} GPUS=${GPUS:-2} MEM=${MEM:-6000}
database=false; [ "${1:-}" = --db ] && database=true
host=$(hostname -s)

if [ "$(id -u)" != 0 ]; then
  echo "slurm_up.sh: starts munge, slurmctld and slurmd as root: run it as root, in a container for example" >&2
  exit 2
fi
wanted=(slurmctld slurmd slurm-client munge)
"$database" && wanted+=(slurmdbd mariadb-server-core mariadb-client-core)
missing=()
for package in "${wanted[@]}"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
mkdir -p "$R"
if [ -L "$R" ] || [ ! -O "$R" ]; then
  echo "slurm_up.sh: $R is not a folder of your own: name another one in R" >&2
  exit 2
fi
chmod 755 "$R"
mkdir -p "$R/log"
if ((${#missing[@]})); then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$R/log/apt.log" 2>&1
fi
mkdir -p "$R"/{munge,ctld,spool,gpu}
chmod 755 "$R"/{log,munge,ctld,spool,gpu}
born() { local rest; read -ra rest < <(sed 's/.*) //' "/proc/$1/stat"); echo "${rest[19]}"; } # as in slurm_down.sh
: >"$R/pids"
echo "$PPID $(born "$PPID")" >"$R/owner"

start() { # NAME COMMAND...: in a session of its own, its pid noted and when it began
  local name=$1; shift
  setsid "$@" </dev/null >>"$R/log/$name.out" 2>&1 &
  echo "$name $! $(born $!)" >>"$R/pids"
}
until_ok() { # TENTHS COMMAND...
  local i; for ((i = 0; i < $1; i++)); do "${@:2}" >/dev/null 2>&1 && return 0; sleep .1; done
  echo "slurm_up.sh: gave up waiting for: ${*:2}; look into $R/log" >&2
  return 1
}

[ -f "$R/munge/key" ] || { head -c 1024 /dev/urandom >"$R/munge/key"; chmod 400 "$R/munge/key"; }
start munged munged -F --key-file="$R/munge/key" --socket="$R/munge/sock" --log-file="$R/munge/log" \
  --pid-file="$R/munge/pid" --seed-file="$R/munge/seed" --num-threads=2
until_ok 100 munge -S "$R/munge/sock" -n

accounting="AccountingStorageType=accounting_storage/none"
if "$database"; then
  accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((PORT + 2))
AccountingStoragePass=$R/munge/sock
AccountingStorageTRES=gres/gpu"
  if [ ! -d "$R/mysql/mysql" ]; then
    mkdir "$R/mysql"
    chmod 700 "$R/mysql"
    mariadb-install-db --no-defaults --user=root --datadir="$R/mysql" --auth-root-authentication-method=socket \
      --auth-root-socket-user=root --skip-test-db >"$R/log/dbinstall.out" 2>&1
  fi
  # No port and no password: root comes by the socket, and nobody else.
  start mariadbd mariadbd --no-defaults --user=root --datadir="$R/mysql" --socket="$R/mysql.sock" \
    --pid-file="$R/mysql.pid" --skip-networking --innodb-buffer-pool-size=64M \
    --innodb-lock-wait-timeout=900 --skip-log-bin --innodb-flush-log-at-trx-commit=0
  until_ok 300 mariadb --no-defaults -S "$R/mysql.sock" -e 'select 1'
  mariadb --no-defaults -S "$R/mysql.sock" -e "create database if not exists slurm_acct"
  cat >"$R/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$R/munge/sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=root
LogFile=$R/log/slurmdbd.log
PidFile=$R/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
CommitDelay=1
CONF
  chmod 600 "$R/slurmdbd.conf"
fi

# Short waits, so that tests are. cred_expire is also how long a requeued job waits; FirstJobId keeps MPICH's segments in
# /dev/shm, which are named by job and step, from being those of an earlier cluster; 30 s is how often limits are looked at.
cat >"$R/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$R/munge/sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$R/ctld
SlurmdSpoolDir=$R/spool/%n
SlurmctldPidFile=$R/slurmctld.pid
SlurmdPidFile=$R/slurmd.%n.pid
SlurmctldLogFile=$R/log/slurmctld.log
SlurmdLogFile=$R/log/slurmd.%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
JobAcctGatherParams=OverMemoryKill
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
DefMemPerCPU=1000
ReturnToService=2
JobRequeue=1
EnforcePartLimits=ALL
MpiDefault=none
SwitchType=switch/none
FirstJobId=$((1000 + $(date +%s) % 900000))
MaxArraySize=1001
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
KillWait=3
UnkillableStepTimeout=20
MessageTimeout=10
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=2,bf_resolution=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PropagateResourceLimits=NONE
GresTypes=gpu,tmpfs
$accounting
CONF
for ((i = 1; i <= NODES; i++)); do
  mkdir -p "$R/spool/n$i"
  echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 10 + i)) CPUs=$CPUS RealMemory=$MEM Gres=gpu:$GPUS,tmpfs:100G"
done >>"$R/slurm.conf"
cat >>"$R/slurm.conf" <<CONF
PartitionName=main Nodes=ALL Default=YES MaxTime=01:00:00 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=boost_usr_prod Nodes=ALL MaxTime=1-00:00:00 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=01:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=${GRACE:-2}
CONF
for ((i = 1; i <= NODES; i++)); do
  for ((g = 0; g < GPUS; g++)); do [ -c "$R/gpu/n$i.$g" ] || mknod "$R/gpu/n$i.$g" c 1 3; done
  ((GPUS)) && echo "NodeName=n$i Name=gpu File=$R/gpu/n$i.[0-$((GPUS - 1))]"
  echo "NodeName=n$i Name=tmpfs Count=100G"
done >"$R/gres.conf"

export SLURM_CONF=$R/slurm.conf
if "$database"; then
  MYSQL_UNIX_PORT="$R/mysql.sock" start slurmdbd slurmdbd -D
  until_ok 200 sacctmgr -i -n list cluster
  sacctmgr -i -n list cluster format=cluster | grep -q local || sacctmgr -i add cluster local >"$R/log/sacctmgr.out"
fi
start slurmctld slurmctld -D -c
for ((i = 1; i <= NODES; i++)); do start "slurmd.n$i" slurmd -D -N "n$i"; done
ready() { [ "$(timeout 3 sinfo -h -N -t idle -p main -o %n | wc -l)" = "$NODES" ]; }
until_ok 300 ready
echo "SLURM_CONF=$SLURM_CONF"
