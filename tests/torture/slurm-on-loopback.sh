#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, to try `hydra/launcher=slurm` where there is no cluster.
#
#   apt-get install slurmctld slurmd munge                      # Debian, as root, like everything here
#   tests/torture/slurm-on-loopback.sh start ~/slurm         # munged, slurmctld and slurmd, on 127.0.0.1
#   . ~/slurm/env && python -m vae_sweep -m ... hydra/launcher=slurm
#   tests/torture/slurm-on-loopback.sh status|stop ~/slurm
#
# Nothing outside the folder is written, but for munged's socket folder; it needs neither systemd nor cgroups. There
# is no accounting database either, so the folder's bin/ has a small `sacct`: submitit asks it which jobs still live.
set -euo pipefail

action=${1:?start, stop or status} folder=$(realpath -m "${2:?a scratch folder}")
node=$(hostname -s) port=${SLURM_ON_LOOPBACK_PORT:-17817}

ended() { # stops the process whose number is in a file, and waits for its end
    [ -s "$1" ] || return 0
    local pid
    pid=$(cat "$1")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    rm -f "$1"
}

configure() {
    local memory # MiB
    memory=$(awk '/MemTotal/ {print int($2 / 1024) - 512}' /proc/meminfo)
    mkdir -p "$folder"/{bin,state,spool,munge}
    chmod 755 "$folder"
    chmod 700 "$folder/munge"
    [ -s "$folder/munge/key" ] || (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
    cat >"$folder/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
KillWait=${SLURM_ON_LOOPBACK_KILLWAIT:-30}
MinJobAge=3600
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
    cat >"$folder/bin/sacct" <<'SACCT'
#!/usr/bin/env bash
# What submitit reads of `sacct -o JobID,State,NodeList --parsable2 -j ...`, from the controller's memory.
echo "JobID|State|NodeList"
while [ $# -gt 0 ]; do
    if [ "$1" = -j ]; then
        scontrol --oneliner show job "$2" 2>/dev/null | awk '{
            delete field
            for (i = 1; i <= NF; i++) { at = index($i, "="); field[substr($i, 1, at - 1)] = substr($i, at + 1) }
            id = "ArrayJobId" in field ? field["ArrayJobId"] "_" field["ArrayTaskId"] : field["JobId"]
            if (id ~ /-|,|%/) { sub(/%.*/, "", id); sub(/_/, "_[", id); id = id "]" }
            print id "|" field["JobState"] "|" field["NodeList"] }'
    fi
    shift
done
SACCT
    chmod 755 "$folder/bin/sacct"
    printf 'export SLURM_CONF=%q PATH=%q:$PATH\n' "$folder/slurm.conf" "$folder/bin" >"$folder/env"
}

start() {
    configure
    . "$folder/env"
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld -c
    slurmd -N "$node"
    for _ in $(seq 60); do
        [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && { sinfo; echo "use it with: . $folder/env"; return; }
        sleep 0.5
    done
    echo "the node did not come up; see $folder/*.log" >&2
    return 1
}

case $action in
start) start ;;
stop)
    [ -s "$folder/env" ] || exit 0
    . "$folder/env"
    scancel --state=PENDING --user=root 2>/dev/null || true
    scancel --full --user=root --signal=KILL 2>/dev/null || true
    for _ in $(seq 20); do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 0.5; done
    for pid in slurmd.pid slurmctld.pid munge/pid; do ended "$folder/$pid"; done
    ;;
status) . "$folder/env" && sinfo && squeue ;;
*) echo "start, stop or status, not $action" >&2 && exit 2 ;;
esac
