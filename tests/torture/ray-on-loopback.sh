#!/usr/bin/env bash
# A Ray cluster of two node processes on this machine, to try `hydra/launcher=ray_cluster` on "an existing cluster".
#
#   PATH=.venv/bin:$PATH tests/torture/ray-on-loopback.sh start ~/ray    # one CPU each, on 127.0.0.1
#   . ~/ray/env && python -m vae_sweep -m ... hydra/launcher=ray_cluster
#   tests/torture/ray-on-loopback.sh status|stop ~/ray
#
# The nodes run in the folder and know nothing of the project but what is installed, or in PYTHONPATH, where they are
# started, as nodes of a real cluster do. `ray` must be in PATH, the folder's name short (socket names). Whatever it is
# told, Ray also listens on this machine's own address: hence the token.
set -euo pipefail

action=${1:?start, stop or status} folder=$(realpath -m "${2:?a scratch folder}")
port=${RAY_ON_LOOPBACK_PORT:-26379} cpus=${RAY_ON_LOOPBACK_CPUS:-1}

node() { # starts one node process in the foreground of its own session, and notes its number
    local name=$1 shift=$2
    shift 2
    (
        cd "$folder"
        exec setsid ray start --block --node-ip-address=127.0.0.1 --num-cpus="$cpus" --object-store-memory=100000000 \
            --node-manager-port=$((port + shift + 1)) --object-manager-port=$((port + shift + 2)) \
            --dashboard-agent-listen-port=$((port + shift + 3)) --dashboard-agent-grpc-port=$((port + shift + 4)) \
            --runtime-env-agent-port=$((port + shift + 5)) --metrics-export-port=$((port + shift + 6)) \
            --min-worker-port=$((port + shift + 20)) --max-worker-port=$((port + shift + 90)) \
            --temp-dir="$folder/$name" --disable-usage-stats "$@"
    ) >"$folder/$name.log" 2>&1 &
    echo $! >"$folder/$name.pid"
}

nodes_alive() {
    ray status --address="127.0.0.1:$port" 2>/dev/null |
        awk '/^Active:/ {on = 1} /^Pending:/ {on = 0} on && / node_/ {n++} END {print n + 0}'
}

start() {
    mkdir -p "$folder"
    [ -s "$folder/token" ] || (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/token")
    cat >"$folder/env" <<ENV
export RAY_ADDRESS=127.0.0.1:$port RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$(printf %q "$folder/token")
export RAY_USAGE_STATS_ENABLED=0
ENV
    . "$folder/env"
    unset RAY_ADDRESS # it would make the head join a cluster
    node head 0 --head --port="$port" --include-dashboard=false --ray-client-server-port=$((port + 7))
    for _ in $(seq 120); do [ "$(nodes_alive)" -ge 1 ] && break; sleep 0.5; done
    node second 100 --address="127.0.0.1:$port"
    for _ in $(seq 120); do
        [ "$(nodes_alive)" -ge 2 ] && { cat "$folder/env"; echo "use it with: . $folder/env"; return; }
        sleep 0.5
    done
    echo "the nodes did not come up; see $folder/*.log" >&2
    return 1
}

case $action in
start) start ;;
stop)
    for name in second head; do
        [ -s "$folder/$name.pid" ] || continue
        pid=$(cat "$folder/$name.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
        kill -KILL -- "-$pid" 2>/dev/null || true # what is left of its session
        rm -f "$folder/$name.pid"
    done
    ;;
status) . "$folder/env" && ray status ;;
*) echo "start, stop or status, not $action" >&2 && exit 2 ;;
esac
