"""python-binary-memcached: the binary protocol with SASL, in pure Python."""

import os
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from facts import *

import bmemcached
from bmemcached.exceptions import MemcachedException


def connect(server, login, **options):
    # Values as bytes: otherwise the client pickles and compresses them.
    return bmemcached.Client([server.address], *login, raw_data=True, socket_timeout=10, **options)


client = connect(SERVER, USER)


def set_():
    equal(client.set("k", b"v1"), True)


def get():
    equal(client.get("k"), b"v1")
    equal(client.get("missing"), None)


def multi_get():
    values = {f"multi-{n}": b"%d" % n for n in range(100)}
    equal(client.set_multi(values), [])
    equal(client.get_multi([*values, "missing"]), values)


def add():
    equal(client.add("added", b"1"), True)
    equal(client.add("added", b"2"), False)
    equal(client.get("added"), b"1")


def replace():
    equal(client.replace("k", b"v2"), True)
    equal(client.replace("missing", b"v"), False)
    equal(client.get("k"), b"v2")


def cas():
    value, token = client.gets("k")
    equal(client.cas("k", b"v3", token), True)
    equal(client.cas("k", b"v4", token), False)
    equal(client.get("k"), b"v3")


def incr():
    equal(client.incr("n", 5, default=10), 10)
    equal(client.incr("n", 5), 15)


def decr():
    equal(client.decr("n", 4), 11)
    equal(client.decr("n", 100), 0)


def delete():
    equal(client.delete("k"), True)
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
    equal(error.code, 3)
    equal(client.get("large"), None)


def expiry():
    equal(client.set("e", b"v", time=1), True)
    eventually("an item expires", lambda: client.get("e") is None)


def binary_safe():
    equal(client.set("b", BINARY), True)
    equal(client.get("b"), BINARY)


def read_only():
    client.set("k", b"v")
    client.set("n", b"1")
    reader = connect(SERVER, READER)
    equal(reader.get("k"), b"v")
    socket = next(iter(reader.servers)).connection
    for call in [
        lambda: reader.set("k", b"w"),
        lambda: reader.add("new", b"w"),
        lambda: reader.delete("k"),
        lambda: reader.incr("n", 1),
        lambda: reader.flush_all(),
    ]:
        error = refused(call)
        equal(isinstance(error, MemcachedException), True)
        equal("may not" in str(error), True)
        equal(reader.get("k"), b"v")
    equal(next(iter(reader.servers)).connection is socket, True)
    equal(client.get("n"), b"1")


def wrong_password():
    # memcached's own status for this is 0x20; the client's InvalidCredentials is for another, 0x08.
    error = refused(lambda: connect(SERVER, WRONG).get("k"))
    equal((isinstance(error, MemcachedException), error.code), (True, 0x20))


def tls():
    client.set("k", b"v")
    context = ssl.create_default_context(cafile=TLS_CA)
    secure = connect(TLS_SERVER, USER, tls_context=context)
    equal(secure.get("k"), b"v")
    secure.set("large", LARGE)
    equal(secure.get("large"), LARGE)


def missing():
    raise Skip("the client has no such operation")


run(
    [
        ("set", set_),
        ("get", get),
        ("multi-get", multi_get),
        ("add", add),
        ("replace", replace),
        ("append", missing),
        ("prepend", missing),
        ("cas", cas),
        ("incr", incr),
        ("decr", decr),
        ("touch", missing),
        ("gat", missing),
        ("delete", delete),
        ("flush", flush),
        ("large-value", large_value),
        ("too-large", too_large),
        ("expiry", expiry),
        ("binary-safe", binary_safe),
        ("read-only", read_only),
        ("wrong-password", wrong_password),
        ("tls", tls),
    ]
)
