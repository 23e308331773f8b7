#!/bin/sh
# Starts a PostgreSQL server of its own in a temporary folder, prints its URL, and stops and removes it
# when standard input ends: `sleep 1000 | clients/postgres.sh`, or Ctrl-D. It listens on a socket in that
# folder only, and keeps nothing safe from a power cut: for tests and for trying things out.

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

cd "$folder"
$as "$bin/initdb" --pgdata "$folder/data" --username larder --auth trust --encoding UTF8 \
    --locale C --no-sync >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
$as "$bin/pg_ctl" --pgdata "$folder/data" --log "$folder/data/log" --wait start \
    --options "-c listen_addresses='' -c unix_socket_directories='$folder' -c fsync=off \
        -c full_page_writes=off -c max_connections=50" >>"$folder/log" 2>&1 ||
    { cat "$folder/log" "$folder/data/log" >&2; exit 1; }

echo "postgresql:///postgres?host=$folder&user=larder"
cat >/dev/null
