#!/bin/bash
# libmemcached's command-line tools, over the binary protocol with SASL.

set -u
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder" || exit 1

# tool <name> <arguments…>: as the credential that may do everything.
tool() {
    as "$LARDER_USERNAME" "$LARDER_PASSWORD" "$@"
}

as() {
    local username=$1 password=$2 name=$3
    shift 3
    "$name" --servers="$LARDER_SERVER" --binary --username="$username" --password="$password" "$@"
}

# Each fact ends with the status of its last command, and `set -e` in `check` ends it at the first that fails.
equal() {
    [ "$1" = "$2" ] || { echo "wanted '$2', got '$1'" >&2; return 1; }
}

refused() {
    if "$@"; then echo "was not refused: $*" >&2; return 1; fi
}

gone() {
    local deadline=$((SECONDS + 10))
    while tool memcexist --quiet "$1"; do
        [ $SECONDS -lt $deadline ] || { echo "$1 did not expire" >&2; return 1; }
        sleep 0.1
    done
}

check_set() { echo -n v1 >k && tool memccp k; }
check_get() {
    equal "$(tool memccat k)" v1
    refused tool memccat --quiet missing
}
check_multi-get() {
    for n in $(seq 20); do echo -n "of-$n" >"multi-$n"; done
    tool memccp multi-*
    equal "$(tool memccat $(seq -f multi-%g 20) | sort)" "$(seq -f of-%g 20 | sort)"
}
check_add() {
    echo -n 1 >added && tool memccp --add added
    echo -n 2 >added && refused tool memccp --quiet --add added
    equal "$(tool memccat added)" 1
}
check_replace() {
    echo -n v2 >k && tool memccp --replace k
    echo -n v >missing && refused tool memccp --quiet --replace missing
    equal "$(tool memccat k)" v2
}
check_touch() {
    echo -n v >t && tool memccp t
    tool memctouch --expire=1 t
    gone t
}
check_delete() {
    tool memcrm k
    refused tool memcexist --quiet k
}
check_flush() {
    tool memccp k && tool memcflush
    refused tool memcexist --quiet k
}
check_large-value() {
    head -c $((1024 * 1024 - 512)) /dev/urandom >large
    tool memccp large
    tool memccat --file=back large
    cmp back large
}
check_too-large() {
    head -c $((1024 * 1024 + 1)) /dev/zero >large
    refused tool memccp --quiet large
    refused tool memcexist --quiet large
}
check_expiry() {
    echo -n v >e && tool memccp --expire=1 e
    gone e
}
check_binary-safe() {
    printf '\0\1\r\nEND\r\n\377' >b && tool memccp b
    tool memccat --file=back b
    cmp back b
}
check_read-only() {
    echo -n v >k && tool memccp k
    reader() { as "$LARDER_READER_USERNAME" "$LARDER_READER_PASSWORD" "$@"; }
    equal "$(reader memccat k)" v
    echo -n w >k && refused reader memccp --quiet k
    refused reader memcrm --quiet k
    refused reader memctouch --quiet --expire=1 k
    equal "$(reader memccat k)" v
}
check_wrong-password() {
    refused as "$LARDER_USERNAME" not-the-password memccat --quiet k
}

skip() {
    echo "skip $1: $2"
}

check() {
    local said
    if said=$(set -e; "check_$1" 2>&1); then
        echo "ok $1"
    else
        echo "FAIL $1: ${said//$'\n'/ }"
    fi
}

for fact in set get multi-get add replace; do check $fact; done
for fact in append prepend cas incr decr; do skip $fact "there is no tool for it"; done
check touch
skip gat "there is no tool for it"
for fact in delete flush large-value too-large expiry binary-safe read-only wrong-password; do check $fact; done
skip tls "libmemcached speaks no TLS"
