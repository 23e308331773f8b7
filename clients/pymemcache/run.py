"""pymemcache over the text protocol, authenticated the way MemCachier's Django backend does it."""

import os
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from facts import *

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheError, MemcacheServerError


class Authenticated(Client):
    """Logs in as the first thing on every new connection."""

    def __init__(self, server, login, *, dialect="memcachier", flags=None, noreply=False, **options):
        self.login = (login, dialect, flags, noreply)
        super().__init__(server, connect_timeout=10, timeout=10, default_noreply=False, **options)

    def _connect(self):
        super()._connect()
        (username, password), dialect, flags, noreply = self.login
        if dialect == "memcachier":
            key, value = username, password
        else:
            key, value = "any-key", f"{username} {password}"
        self.set(key, value, flags=flags, noreply=noreply)


client = Authenticated(SERVER.pair, USER)


def set_():
    equal(client.set("k", b"v1"), True)


def get():
    equal(client.get("k"), b"v1")
    equal(client.get("missing"), None)


def multi_get():
    values = {f"multi-{n}": b"%d" % n for n in range(100)}
    equal(client.set_many(values), [])
    equal(client.get_many([*values, "missing"]), values)


def add():
    equal(client.add("added", b"1"), True)
    equal(client.add("added", b"2"), False)
    equal(client.get("added"), b"1")


def replace():
    equal(client.replace("k", b"v2"), True)
    equal(client.replace("missing", b"v"), False)
    equal(client.get("k"), b"v2")


def append():
    equal(client.append("k", b">"), True)
    equal(client.append("missing", b">"), False)
    equal(client.get("k"), b"v2>")


def prepend():
    equal(client.prepend("k", b"<"), True)
    equal(client.get("k"), b"<v2>")


def cas():
    value, token = client.gets("k")
    equal(client.cas("k", b"v3", token), True)
    equal(client.cas("k", b"v4", token), False)
    equal(client.cas("missing", b"v", token), None)
    equal(client.get("k"), b"v3")


def incr():
    client.set("n", b"10")
    equal(client.incr("n", 5), 15)
    equal(client.incr("missing", 1), None)
    client.set("text", b"abc")
    refused(lambda: client.incr("text", 1))


def decr():
    equal(client.decr("n", 4), 11)
    equal(client.decr("n", 100), 0)


def touch():
    client.set("t", b"v")
    equal(client.touch("t", 1), True)
    equal(client.touch("missing", 1), False)
    eventually("a touched item expires", lambda: client.get("t") is None)


def gat():
    client.set("t", b"v")
    # The client has no method for it, but one for commands that it does not know.
    equal(client.raw_command("gat 1 t missing", "END\r\n"), b"VALUE t 0 1\r\nv\r\n")
    eventually("an item that was got and touched expires", lambda: client.get("t") is None)


def delete():
    equal(client.delete("k"), True)
    equal(client.delete("k"), False)
    equal(client.get("k"), None)


def flush():
    client.set("k", b"v")
    equal(client.flush_all(), True)
    equal(client.get("k"), None)


def large_value():
    equal(client.set("large", LARGE), True)
    equal(client.get("large"), LARGE)


def too_large():
    error = refused(lambda: client.set("large", TOO_LARGE))
    equal(isinstance(error, MemcacheServerError), True)
    equal(client.get("large"), None)


def expiry():
    equal(client.set("e", b"v", expire=1), True)
    equal(client.set("gone", b"v", expire=-1), True)
    equal(client.get("gone"), None)
    eventually("an item expires", lambda: client.get("e") is None)


def binary_safe():
    equal(client.set("b", BINARY), True)
    equal(client.get("b"), BINARY)


def read_only():
    client.set("k", b"v")
    client.set("n", b"1")
    reader = Authenticated(SERVER.pair, READER)
    equal(reader.get("k"), b"v")
    for call in [
        lambda: reader.set("k", b"w"),
        lambda: reader.add("new", b"w"),
        lambda: reader.append("k", b"w"),
        lambda: reader.cas("k", b"w", b"1"),
        lambda: reader.delete("k"),
        lambda: reader.incr("n", 1),
        lambda: reader.touch("k", 1),
        lambda: reader.flush_all(),
    ]:
        error = refused(call)
        equal(isinstance(error, (MemcacheClientError, MemcacheServerError)), True)
        equal("may not" in str(error), True)
    equal(reader.get("k"), b"v")
    equal(client.get("n"), b"1")
    # With noreply a refusal must stay silent, or the next answer would be taken for it.
    reader.set("k", b"w", noreply=True)
    equal(reader.get("k"), b"v")


def wrong_password():
    stranger = Authenticated(SERVER.pair, WRONG)
    error = refused(lambda: stranger.get("k"))
    equal(isinstance(error, MemcacheClientError), True)


def tls():
    client.set("k", b"v")
    secure = Authenticated(
        TLS_SERVER.pair, USER, tls_context=ssl.create_default_context(cafile=TLS_CA)
    )
    equal(secure.get("k"), b"v")
    secure.set("large", LARGE)
    equal(secure.get("large"), LARGE)


def login_noreply():
    silent = Authenticated(SERVER.pair, USER, noreply=True)
    client.set("k", b"v")
    equal(silent.get("k"), b"v")


def login_flags():
    flagged = Authenticated(SERVER.pair, USER, flags=16)
    client.set("k", b"v")
    equal(flagged.get("k"), b"v")


def login_memcached_dialect():
    stock = Authenticated(SERVER.pair, USER, dialect="memcached")
    client.set("k", b"v")
    equal(stock.get("k"), b"v")
    stranger = Authenticated(SERVER.pair, WRONG, dialect="memcached")
    equal(isinstance(refused(lambda: stranger.get("k")), MemcacheClientError), True)


def noreply():
    for n in range(100):
        client.set("silent", b"%d" % n, noreply=True)
    equal(client.get("silent"), b"99")
    client.delete("silent", noreply=True)
    equal(client.get("silent"), None)


def flags():
    client.set("f", b"v", flags=4294967295)
    flagged = Authenticated(SERVER.pair, USER, deserializer=lambda key, value, flags: (value, flags))
    equal(flagged.get("f"), (b"v", 4294967295))


run(
    [
        ("set", set_),
        ("get", get),
        ("multi-get", multi_get),
        ("add", add),
        ("replace", replace),
        ("append", append),
        ("prepend", prepend),
        ("cas", cas),
        ("incr", incr),
        ("decr", decr),
        ("touch", touch),
        ("gat", gat),
        ("delete", delete),
        ("flush", flush),
        ("large-value", large_value),
        ("too-large", too_large),
        ("expiry", expiry),
        ("binary-safe", binary_safe),
        ("read-only", read_only),
        ("wrong-password", wrong_password),
        ("tls", tls),
        ("noreply", noreply),
        ("flags", flags),
        ("login-noreply", login_noreply),
        ("login-flags", login_flags),
        ("login-memcached-dialect", login_memcached_dialect),
    ]
)
