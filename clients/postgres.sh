#!/bin/sh
# Starts a PostgreSQL server of its own in a temporary folder, prints its URL, and stops and removes it
# when standard input ends: `sleep 1000 | clients/postgres.sh`, or Ctrl-D. It listens on a socket in that
# folder only, and keeps nothing safe from a power cut: for tests and for trying things out.
#
# The line `kill` on standard input kills the server as a crash does, `start` starts it again; each is
# answered by a line when it is done. With LARDER_POSTGRES_TLS=FOLDER, in which server.crt and server.key
# are, it listens on a port of 127.0.0.1 as well, where it takes encrypted connections only; the second
# line printed is that URL.

set -eu

# The newest version that Debian's packages have installed.
bin=''
for found in /usr/lib/postgresql/*/bin; do
    bin=$found
done
if ! [ -x "$bin/initdb" ]; then
    echo "there is no PostgreSQL server; Debian's package is postgresql" >&2
    exit 1
fi

folder=$(mktemp -d)
# A server refuses to run as root.
as=''
if [ "$(id -u)" = 0 ]; then
    chown postgres: "$folder"
    as='setpriv --reuid=postgres --regid=postgres --clear-groups'
fi

finish() {
    $as "$bin/pg_ctl" --pgdata "$folder/data" --mode immediate stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT
# A signal ends us by way of EXIT.
trap 'exit 1' INT TERM HUP

# In one line: pg_ctl hands them to a shell.
options="-c listen_addresses='' -c unix_socket_directories='$folder' -c fsync=off"
options="$options -c full_page_writes=off -c max_connections=50"

start() {
    $as "$bin/pg_ctl" --pgdata "$folder/data" --log "$folder/data/log" --wait start \
        --options "$options" >>"$folder/log" 2>&1
}

# Any free port: a server that finds its port taken does not start.
start_with_tls() {
    cp "$LARDER_POSTGRES_TLS/server.crt" "$LARDER_POSTGRES_TLS/server.key" "$folder/data"
    chmod 600 "$folder/data/server.key"
    if [ -n "$as" ]; then chown postgres: "$folder/data/server.crt" "$folder/data/server.key"; fi
    echo 'local all all trust
hostssl all all 127.0.0.1/32 trust' >"$folder/data/pg_hba.conf"
    plain=$options
    for attempt in 1 2 3 4 5; do
        port=$((20000 + ($(od -An -N2 -tu2 /dev/urandom) + attempt) % 12000))
        options="$plain -c listen_addresses=127.0.0.1 -c port=$port -c ssl=on"
        if start; then return 0; fi
    done
    return 1
}

cd "$folder"
$as "$bin/initdb" --pgdata "$folder/data" --username larder --auth trust --encoding UTF8 \
    --locale C --no-sync >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
failed() {
    cat "$folder/log" "$folder/data/log" >&2
    exit 1
}
if [ -n "${LARDER_POSTGRES_TLS:-}" ]; then
    start_with_tls || failed
    echo "postgresql:///postgres?host=$folder&port=$port&user=larder"
    echo "postgresql://larder@localhost:$port/postgres?hostaddr=127.0.0.1"
else
    start || failed
    echo "postgresql:///postgres?host=$folder&user=larder"
fi

while read -r wish; do
    case $wish in
    kill)
        kill -9 "$(head -n 1 "$folder/data/postmaster.pid")"
        echo killed
        ;;
    start)
        # What the killed one has started ends a moment later, and no other one starts before.
        until start; do sleep 0.1; done
        echo started
        ;;
    esac
done
