#!/usr/bin/env bash
# An MLflow tracking server of one's own: PostgreSQL for the runs, passwords, artifacts through the server.
# Everything is kept in one folder and answers on this machine only (127.0.0.1).
#
#   server.sh start|stop|status|env FOLDER [postgres|mlflow]
#
# Settings, read at the first start and kept in FOLDER/settings (mode 0600) with the passwords drawn there:
#   PYTHON    an interpreter with mlflow[auth] and psycopg2-binary         (python3)
#   PG_BIN    the folder of initdb and pg_ctl    (where PATH has them, else Debian's newest)
#   PORT      of the MLflow server                                         (5000)
#   PG_PORT   of PostgreSQL                                                (5433)
#   WORKERS   processes that answer requests                               (2)
#   RUN_AS    who PostgreSQL runs as when root starts it                   (postgres)
set -euo pipefail
umask 077

die() { echo "server.sh: $*" >&2; exit 1; }

action=${1:-} folder=${2:-} part=${3:-all}
case "$action" in start | stop | status | env) ;; *) action="" ;; esac
case "$part" in all | postgres | mlflow) ;; *) action="" ;; esac
[ -n "$action" ] && [ -n "$folder" ] || die "usage: server.sh start|stop|status|env FOLDER [postgres|mlflow]"

if [ "$action" = start ]; then
  mkdir -p "$folder" 2>/dev/null || die "$folder: cannot be made; give a folder that may be written"
fi
[ -d "$folder" ] || die "$folder: no such folder; \`server.sh start\` makes it"
folder=$(cd "$folder" && pwd)
settings=$folder/settings

free() { # is the port free?
  "$PYTHON" -c 'import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", int(sys.argv[1])))' \
    "$1" 2>/dev/null
}

random() { "$PYTHON" -c 'import secrets; print(secrets.token_hex(24))'; }

if [ ! -f "$settings" ]; then
  [ "$action" = start ] || die "$folder: holds no server; \`server.sh start\` makes one"
  PYTHON=$(command -v "${PYTHON:-python3}") || die "PYTHON: no such interpreter"
  "$PYTHON" -c 'import mlflow, flask_wtf, psycopg2' 2>/dev/null ||
    die "$PYTHON lacks a package; pip install 'mlflow[auth]' psycopg2-binary"
  if [ -z "${PG_BIN:-}" ]; then
    initdb=$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
    [ -n "$initdb" ] || die "no PostgreSQL found; install it, or give the folder of its initdb as PG_BIN"
    PG_BIN=$(dirname "$initdb")
  fi
  [ -x "$PG_BIN/initdb" ] && [ -x "$PG_BIN/pg_ctl" ] || die "PG_BIN=$PG_BIN: holds no initdb and pg_ctl"
  free "${PORT:-5000}" || die "port ${PORT:-5000} is in use; give another as PORT"
  free "${PG_PORT:-5433}" || die "port ${PG_PORT:-5433} is in use; give another as PG_PORT"
  {
    printf '%s=%q\n' PYTHON "$PYTHON" PG_BIN "$PG_BIN" PORT "${PORT:-5000}" PG_PORT "${PG_PORT:-5433}"
    printf '%s=%q\n' WORKERS "${WORKERS:-2}" RUN_AS "${RUN_AS:-postgres}"
    printf '%s=%s\n' PG_ADMIN_PASSWORD "$(random)" PG_PASSWORD "$(random)"
    printf '%s=%s\n' MLFLOW_PASSWORD "$(random)" SECRET_KEY "$(random)"
  } >"$settings.new"
  mv "$settings.new" "$settings"
fi
# shellcheck disable=SC1090
. "$settings"

log=$folder/mlflow.log pid_file=$folder/mlflow.pid
data=$folder/postgres/data pg_log=$folder/postgres/log
database=postgresql+psycopg2://mlflow:$PG_PASSWORD@127.0.0.1:$PG_PORT

as_owner() { # PostgreSQL refuses to run as root
  if [ "$(id -u)" = 0 ]; then (cd / && runuser -u "$RUN_AS" -- "$@"); else "$@"; fi
}

postgres_runs() { as_owner "$PG_BIN/pg_ctl" -D "$data" status >/dev/null 2>&1; }

mlflow_pid() { # of the running server; a number that another program has got since does not count
  local pid
  pid=$(cat "$pid_file" 2>/dev/null) && ps -o args= -p "$pid" 2>/dev/null | grep -q mlflow && echo "$pid"
}

healthy() {
  "$PYTHON" -c 'import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=5)' \
    "$PORT" 2>/dev/null
}

make_databases() { # passwords go through the environment: a list of processes shows arguments
  PGPASSWORD=$PG_ADMIN_PASSWORD NEW_PASSWORD=$PG_PASSWORD "$PYTHON" -c 'import os, sys, time, psycopg2
for waited in range(60):
    try:
        connection = psycopg2.connect(host="127.0.0.1", port=sys.argv[1], user="postgres", dbname="postgres")
        break
    except psycopg2.OperationalError as error:  # such as a start in progress
        reason = str(error).strip().splitlines()[-1]
        time.sleep(1)
else:
    sys.exit(reason)
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", ["mlflow"])
if not cursor.fetchone():
    cursor.execute("CREATE ROLE mlflow LOGIN PASSWORD %s", [os.environ["NEW_PASSWORD"]])
for name in ("mlflow", "mlflow_auth"):
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
    if not cursor.fetchone():
        cursor.execute(f"CREATE DATABASE {name} OWNER mlflow")' "$PG_PORT"
}

start_postgres() {
  postgres_runs && return
  free "$PG_PORT" || die "port $PG_PORT is in use; free it, or change $settings"
  if [ ! -d "$folder/postgres" ]; then
    mkdir "$folder/postgres"
    if [ "$(id -u)" = 0 ]; then
      chmod 711 "$folder" # the owner of the database must get through
      chown "$RUN_AS" "$folder/postgres" || die "RUN_AS=$RUN_AS: no such user"
    fi
  fi
  as_owner test -w "$folder/postgres" || die "$folder/postgres: user $RUN_AS cannot write there; use another folder"
  if [ ! -d "$data" ]; then
    # shellcheck disable=SC2016
    printf '%s\n' "$PG_ADMIN_PASSWORD" | as_owner sh -c 'cat >"$1" && "$2" -D "$3" -U postgres -E UTF8 --no-locale \
      --auth=scram-sha-256 --pwfile="$1"; code=$?; rm -f "$1"; exit $code' \
      sh "$folder/postgres/password" "$PG_BIN/initdb" "$data" >"$folder/initdb.log" 2>&1 ||
      die "initdb failed: $(tail -n 1 "$folder/initdb.log")"
  fi
  as_owner "$PG_BIN/pg_ctl" -D "$data" -l "$pg_log" -w -t 180 \
    -o "-p $PG_PORT -c listen_addresses=127.0.0.1 -c unix_socket_directories=" start >/dev/null ||
    die "PostgreSQL does not start: $(tail -n 1 "$pg_log")"
}

start_mlflow() {
  [ -n "$(mlflow_pid)" ] && return
  free "$PORT" || die "port $PORT is in use; free it, or change $settings"
  mkdir -p "$folder/artifacts"
  cat >"$folder/auth.ini" <<INI
[mlflow]
default_permission = READ
database_uri = $database/mlflow_auth
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
INI
  set -m # a process group of its own: stop ends its workers with it
  (
    cd "$folder"
    # Passwords go through the environment and files of mode 0600, never through arguments.
    export MLFLOW_BACKEND_STORE_URI=$database/mlflow MLFLOW_AUTH_CONFIG_PATH=$folder/auth.ini
    export MLFLOW_AUTH_ADMIN_PASSWORD=$MLFLOW_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY=$SECRET_KEY
    export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
    unset MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD
    exec "$PYTHON" -m mlflow server --app-name basic-auth --host 127.0.0.1 --port "$PORT" --workers "$WORKERS" \
      --allowed-hosts "127.0.0.1:$PORT,localhost:$PORT" \
      --serve-artifacts --artifacts-destination "$folder/artifacts"
  ) >>"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
  set +m
  for _ in $(seq 120); do
    healthy && return
    [ -n "$(mlflow_pid)" ] || die "MLflow does not start: $(grep -v '^ *$' "$log" | tail -n 1) (see $log)"
    sleep 1
  done
  die "MLflow does not answer after two minutes; see $log"
}

stop_mlflow() {
  local pid
  pid=$(mlflow_pid) || return 0
  kill -- "-$pid" 2>/dev/null || true
  for _ in $(seq 30); do
    kill -0 -- "-$pid" 2>/dev/null || { rm -f "$pid_file"; return; }
    sleep 1
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
  rm -f "$pid_file"
}

stop_postgres() {
  postgres_runs || return 0
  as_owner "$PG_BIN/pg_ctl" -D "$data" -m fast -w -t 180 stop >/dev/null ||
    die "PostgreSQL has not stopped after 3 minutes; see $pg_log"
}

wanted() { [ "$part" = all ] || [ "$part" = "$1" ]; }

case "$action" in
  start)
    if wanted postgres; then
      start_postgres
      make_databases || die "PostgreSQL: the databases cannot be made"
    fi
    if wanted mlflow; then start_mlflow; fi
    echo "http://127.0.0.1:$PORT is ready; for its clients: eval \"\$($0 env $(printf %q "$folder"))\""
    ;;
  stop)
    if wanted mlflow; then stop_mlflow; fi
    if wanted postgres; then stop_postgres; fi
    ;;
  status)
    code=0
    if wanted postgres; then
      if postgres_runs; then echo "postgres: runs on port $PG_PORT"; else echo "postgres: stopped"; code=3; fi
    fi
    if wanted mlflow; then
      if [ -n "$(mlflow_pid)" ] && healthy; then
        echo "mlflow: answers on http://127.0.0.1:$PORT"
      else
        echo "mlflow: does not answer"
        code=3
      fi
    fi
    exit $code
    ;;
  env)
    if [ "$part" = postgres ]; then # past the server, straight into its database
      echo "export MLFLOW_TRACKING_URI=$database/mlflow"
    else
      echo "export MLFLOW_TRACKING_URI=http://127.0.0.1:$PORT"
      echo "export MLFLOW_TRACKING_USERNAME=admin"
      echo "export MLFLOW_TRACKING_PASSWORD=$MLFLOW_PASSWORD"
    fi
    ;;
esac
