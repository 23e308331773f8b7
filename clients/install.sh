#!/bin/sh
# Installs what the client scripts and the other tests of real processes need: Debian packages, and
# into target/clients a Python environment and a Node module. Does nothing when all is there.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
into=${LARDER_CLIENTS:-$here/../target/clients}

# Program or file that a package brings, and the package.
needed='
/usr/bin/memcached memcached
/usr/bin/memccapable libmemcached-tools
/usr/bin/prlimit util-linux
/usr/lib/*/faketime/libfaketimeMT.so.1 libfaketime
/usr/bin/valgrind valgrind
/usr/lib/postgresql/*/bin/initdb postgresql
/usr/sbin/saslpasswd2 sasl2-bin
/usr/bin/ruby ruby
/usr/share/rubygems-integration/all/specifications/dalli-*.gemspec ruby-dalli
/usr/bin/php php-cli
/usr/lib/php/*/memcached.so php-memcached
/usr/share/rubygems-integration/all/specifications/activesupport-*.gemspec ruby-activesupport
/usr/share/rubygems-integration/all/specifications/connection_pool-*.gemspec ruby-connection-pool
/usr/share/php/Illuminate/Cache/autoload.php php-illuminate-cache
/usr/share/php/Illuminate/Container/autoload.php php-illuminate-container
/usr/bin/javac default-jdk-headless
/usr/share/java/spymemcached.jar libspymemcached-java
/usr/bin/go golang-go
/usr/share/gocode/src/github.com/bradfitz/gomemcache golang-github-bradfitz-gomemcache-dev
/usr/bin/python3 python3
/usr/lib/python3*/ensurepip python3-venv
/usr/lib/*/sasl2/libplain.so libsasl2-modules
/usr/bin/chromium chromium
/usr/share/fonts/truetype/liberation*/LiberationSans-Regular.ttf fonts-liberation
'

missing=''
while read -r path package; do
    [ -n "$path" ] || continue
    # Unquoted, because some paths have a version in them.
    # shellcheck disable=SC2086
    ls -d $path >/dev/null 2>&1 || missing="$missing $package"
done <<END
$needed
END
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"

if [ -n "$missing" ]; then
    echo "installing$missing"
    as_root=''
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
fi

mkdir -p "$into"
if ! cmp -s "$here/requirements.txt" "$into/python/installed.txt"; then
    /usr/bin/python3 -m venv --clear "$into/python"
    "$into/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$into/python/installed.txt"
fi
if ! cmp -s "$here/package.json" "$into/node/installed.json"; then
    mkdir -p "$into/node"
    cp "$here/package.json" "$into/node/package.json"
    npm install --prefix "$into/node" --no-audit --no-fund --loglevel=error
    cp "$here/package.json" "$into/node/installed.json"
fi
if ! [ "$into/gomemcache" -nt "$here/gomemcache/run.go" ]; then
    # Debian's copy of the client, as it lies in the package's source tree.
    GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS=-mod=mod \
        go build -o "$into/gomemcache" "$here/gomemcache/run.go"
fi
