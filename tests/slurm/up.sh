#!/bin/bash
# Bring up a REAL single-node Slurm, everything under one directory, loopback only. Needs root.
# Idempotent; installs the Debian packages if they are missing. README.md says what the less obvious settings are for.
#   up.sh && . DIR/env.sh ... down.sh
set -eu
SLURM_DIR=${SLURM_DIR:-${TMPDIR:-/tmp}/fz-slurm} # absolute and short: unix sockets live in it (108-byte limit)
SLURM_ACCT=${SLURM_ACCT:-dbd}        # dbd: real slurmdbd+mariadb | shim: sacct made from scontrol | none
SLURM_CPUS=${SLURM_CPUS:-16}          # CPUs the node pretends to have (config_overrides)
SLURM_MEM_MB=${SLURM_MEM_MB:-1000000}
SLURM_GPUS=${SLURM_GPUS:-0}          # fake GPUs (device nodes like /dev/null), 0: none
SLURM_KILLWAIT=${SLURM_KILLWAIT:-5}  # s from SIGTERM to SIGKILL; a COMPLETING job blocks the node so long
SLURM_GRACE=${SLURM_GRACE:-10}       # s of notice that a preempted job gets
SLURM_PORT=${SLURM_PORT:-16817}      # slurmctld; +1 slurmd, +2 slurmdbd, +3 mariadbd
D=$SLURM_DIR
HOST=$(uname -n); HOST=${HOST%%.*}
PATH=$PATH:/usr/sbin:/sbin
umask 022

pkgs=()
for c in munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client; do
  command -v "${c%%:*}" >/dev/null || pkgs=(munge slurm-wlm slurm-wlm-basic-plugins)
done
if [ "$SLURM_ACCT" = dbd ]; then
  for c in slurmdbd mariadbd mariadb-install-db my_print_defaults; do
    command -v "$c" >/dev/null || { pkgs+=(slurmdbd mariadb-server-core mariadb-client-core); break; }
  done
fi
if [ ${#pkgs[@]} -gt 0 ]; then
  log=$(mktemp)
  inst() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${pkgs[@]}"; }
  inst >"$log" 2>&1 || { apt-get update >"$log" 2>&1 && inst >"$log" 2>&1; } || { tail -20 "$log" >&2; exit 1; }
  rm -f "$log"
fi

mkdir -p "$D"/{etc,run,log,state,spool,munge,bin}
chmod 755 "$D" "$D"/{etc,run,log,state,spool,munge,bin}
export SLURM_CONF=$D/etc/slurm.conf

case $SLURM_ACCT in
  dbd) acct="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((SLURM_PORT + 2))
AccountingStoragePass=$D/munge/munge.socket.2" ;; # = munge socket towards slurmdbd: AuthInfo is not used there
  *) acct="AccountingStorageType=accounting_storage/none" ;;
esac
# listen on loopback only; needs a host name that resolves to it (else all interfaces are bound)
bind=CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
getent ahostsv4 "$HOST" | grep -q '^127\.' || {
  bind=; echo "warning: $HOST does not resolve to 127.*: Slurm listens on all interfaces" >&2; }
gres_conf= gres_node=
if [ "$SLURM_GPUS" -gt 0 ]; then
  for i in $(seq 0 $((SLURM_GPUS - 1))); do [ -c "$D/run/gpu$i" ] || mknod "$D/run/gpu$i" c 1 3; done
  echo "NodeName=$HOST Name=gpu Flags=nvidia_gpu_env File=$D/run/gpu[0-$((SLURM_GPUS - 1))]" >"$D/etc/gres.conf"
  gres_conf="GresTypes=gpu" gres_node="Gres=gpu:$SLURM_GPUS"
fi

cat >"$D/etc/slurm.conf" <<CONF
ClusterName=testcluster
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$SLURM_PORT
SlurmdPort=$((SLURM_PORT + 1))
$bind
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$D/munge/munge.socket.2,cred_expire=5
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.log
SlurmctldDebug=info
SlurmdDebug=info
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
$acct
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=4000
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=$SLURM_KILLWAIT
MinJobAge=7200
MaxArraySize=1001
MaxJobCount=10000
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
UnkillableStepTimeout=60
$gres_conf
NodeName=$HOST NodeHostname=$HOST NodeAddr=127.0.0.1 CPUs=$SLURM_CPUS RealMemory=$SLURM_MEM_MB $gres_node State=UNKNOWN
PartitionName=debug Nodes=$HOST Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=$SLURM_GRACE
PartitionName=high  Nodes=$HOST Default=NO  MaxTime=INFINITE State=UP PriorityTier=10
CONF

alive() { # daemon: is the recorded pid that daemon, started for this directory?
  local p; p=$(cat "$D/run/$1.pid" 2>/dev/null) && [ -n "$p" ] &&
    grep -qx "$1" "/proc/$p/comm" 2>/dev/null &&
    grep -qzxF -e "SLURM_CONF=$D/etc/slurm.conf" "/proc/$p/environ" 2>/dev/null
}
fresh=
[ -s "$D/munge/munge.key" ] || (umask 077; head -c 1024 /dev/urandom >"$D/munge/munge.key")
if ! alive munged; then
  fresh=1; rm -f "$D"/munge/munge.socket.2*
  munged --socket="$D/munge/munge.socket.2" --key-file="$D/munge/munge.key" \
    --pid-file="$D/run/munged.pid" --log-file="$D/log/munged.log" \
    --seed-file="$D/munge/munged.seed" --num-threads=4
fi

if [ "$SLURM_ACCT" = dbd ]; then
  if ! alive mariadbd; then
    fresh=1
    [ -d "$D/mysql/mysql" ] || mariadb-install-db --no-defaults --datadir="$D/mysql" --user=root \
      --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >"$D/log/mariadb-install.log" 2>&1 ||
      { cat "$D/log/mariadb-install.log" >&2; exit 1; }
    pw=$(cat "$D/etc/dbpass" 2>/dev/null || (umask 077; od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | tee "$D/etc/dbpass"))
    (umask 077; cat >"$D/etc/init.sql" <<SQL
CREATE DATABASE IF NOT EXISTS slurm_acct;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY '$pw';
GRANT ALL ON slurm_acct.* TO 'slurm'@'127.0.0.1';
SQL
     cat >"$D/etc/slurmdbd.conf" <<CONF
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((SLURM_PORT + 2))
$bind
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$D/munge/munge.socket.2
PidFile=$D/run/slurmdbd.pid
LogFile=$D/log/slurmdbd.log
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((SLURM_PORT + 3))
StorageUser=slurm
StoragePass=$pw
StorageLoc=slurm_acct
CONF
    )
    setsid mariadbd --no-defaults --user=root --datadir="$D/mysql" --socket="$D/run/mysql.sock" \
      --pid-file="$D/run/mariadbd.pid" --bind-address=127.0.0.1 --port=$((SLURM_PORT + 3)) \
      --init-file="$D/etc/init.sql" --skip-name-resolve --innodb-buffer-pool-size=64M \
      --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 \
      >"$D/log/mariadbd.log" 2>&1 </dev/null &
    for _ in $(seq 1200); do alive mariadbd && [ -S "$D/run/mysql.sock" ] && break; sleep 0.1; done
  fi
  alive slurmdbd || { fresh=1; slurmdbd; }
  end=$((SECONDS + 120))
  until timeout 5 sacctmgr -n -i list cluster >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { tail -n 20 "$D/log/slurmdbd.log" "$D/log/mariadbd.log" >&2; exit 1; }
    sleep 0.1
  done
  [ -n "$(sacctmgr -n -P list cluster format=cluster names=testcluster)" ] ||
    sacctmgr -Q -i add cluster testcluster >/dev/null
fi
alive slurmctld || { fresh=1; slurmctld -f "$SLURM_CONF"; }
alive slurmd || { fresh=1; slurmd -f "$SLURM_CONF"; }

rm -f "$D/bin/sacct"
if [ "$SLURM_ACCT" = shim ]; then # submitit only calls: sacct -o JobID,State,NodeList --parsable2 -j ID ...
  cat >"$D/bin/sacct" <<'SHIM'
#!/usr/bin/env python3
import re, subprocess, sys
a = sys.argv[1:]
ids = [a[i + 1] for i, x in enumerate(a[:-1]) if x == "-j"]
print("JobID|State|NodeList")
for j in dict.fromkeys(x for i in ids for x in i.split(",")):
    out = subprocess.run(["scontrol", "-o", "show", "job", j], capture_output=True, text=True).stdout
    for line in out.splitlines():
        f = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobState" not in f:
            continue
        t = f.get("ArrayTaskId")
        t = f"[{t}]" if t and not t.isdigit() else t
        n = f["JobId"] if t is None else f"{f['ArrayJobId']}_{t}"
        print(f"{n}|{f['JobState']}|{f.get('NodeList', '')}")
SHIM
  chmod 755 "$D/bin/sacct"
fi
cat >"$D/env.sh" <<ENV
export SLURM_DIR=$D SLURM_CONF=$SLURM_CONF
case ":\$PATH:" in *":$D/bin:"*) ;; *) export PATH=$D/bin:\$PATH ;; esac
ENV

for _ in $(seq 900); do
  st=$(sinfo -h -p debug -o %t 2>/dev/null || true)
  case "$st" in
    idle | mix | alloc | comp)
      # sinfo can say "idle" a moment before slurmd has registered: prove it with one real step
      if [ -z "$fresh" ] || timeout 20 srun -Q -n1 -p debug --time=1 true 2>/dev/null; then
        echo "slurm up: $HOST $st, SLURM_CONF=$SLURM_CONF, accounting $SLURM_ACCT"
        exit 0
      fi ;;
    down* | drain*) scontrol update nodename="$HOST" state=resume 2>/dev/null || true ;;
  esac
  sleep 0.2
done
echo "slurm did not come up (state: ${st:-no answer})" >&2
tail -n 20 "$D"/log/*.log >&2
exit 1
