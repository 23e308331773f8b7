"""pymemcache with several servers, of which one goes away: everything is served by the others.

Prints "ready" when its keys are stored, goes on when a line comes in, and prints what it found then.
"""

import os
import sys
import time

from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheError

SERVERS = [server.rsplit(":", 1) for server in os.environ["LARDER_SERVERS"].split(",")]
USER = (os.environ["LARDER_USERNAME"], os.environ["LARDER_PASSWORD"])
KEYS = [f"failover-{n}" for n in range(300)]
# For the service to give away what the dead one owned.
SERVED_SECONDS_MAX = 60


class Authenticated(Client):
    """Logs in as the first thing on every new connection."""

    def _connect(self):
        super()._connect()
        self.set(*USER)


class Failover(HashClient):
    client_class = Authenticated


client = Failover(
    [(host, int(port)) for host, port in SERVERS],
    connect_timeout=5,
    timeout=5,
    default_noreply=False,
    # The next server is asked at once, and the dead one is left alone.
    retry_attempts=0,
    dead_timeout=3600,
)


def attempt(call):
    """What the call returns; None when the service says that it cannot just now."""
    try:
        return call()
    except (MemcacheError, OSError):
        return None


def all_stored(value):
    return all([attempt(lambda: client.set(key, value)) for key in KEYS])


def wait(what, look):
    deadline = time.monotonic() + SERVED_SECONDS_MAX
    while not look():
        if time.monotonic() > deadline:
            sys.exit(f"within {SERVED_SECONDS_MAX} s it did not happen that {what}")
        time.sleep(0.05)


wait("all keys were stored", lambda: all_stored(b"before"))
print("ready", flush=True)
sys.stdin.readline()
kept = sum(attempt(lambda: client.get(key)) == b"before" for key in KEYS)
wait("all keys were stored again", lambda: all_stored(b"after"))
wrong = [key for key in KEYS if client.get(key) != b"after"]
if wrong:
    sys.exit(f"not found after they were stored: {wrong}")
print(f"kept {kept} of {len(KEYS)}", flush=True)
