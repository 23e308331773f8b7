"""pylibmc: libmemcached from Python, over the binary protocol with SASL."""

import glob
import os
import sys

# The wheel brings its own libsasl2, which looks for its mechanisms where Debian does not put them.
os.environ.setdefault("SASL_PATH", ":".join(glob.glob("/usr/lib/*/sasl2")))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from facts import *

import pylibmc


def connect(login):
    username, password = login
    return pylibmc.Client(
        [SERVER.address],
        binary=True,
        username=username,
        password=password,
        behaviors={"cas": True, "receive_timeout": 10_000_000, "send_timeout": 10_000_000},
    )


client = connect(USER)


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
    equal(isinstance(refused(lambda: client.replace("missing", b"v")), pylibmc.NotFound), True)
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
    equal(client.get("k"), b"v3")


def incr():
    client.set("n", 10)
    equal(client.incr("n", 5), 15)
    equal(isinstance(refused(lambda: client.incr("missing", 1)), pylibmc.NotFound), True)


def decr():
    equal(client.decr("n", 4), 11)
    equal(client.decr("n", 100), 0)


def touch():
    client.set("t", b"v")
    equal(client.touch("t", 1), True)
    equal(client.touch("missing", 1), False)
    eventually("a touched item expires", lambda: client.get("t") is None)


def gat():
    raise Skip("the client has no such operation")


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
    equal(isinstance(refused(lambda: client.set("large", TOO_LARGE)), pylibmc.TooBig), True)
    equal(client.get("large"), None)


def expiry():
    equal(client.set("e", b"v", time=1), True)
    eventually("an item expires", lambda: client.get("e") is None)


def binary_safe():
    equal(client.set("b", BINARY), True)
    equal(client.get("b"), BINARY)


def read_only():
    client.set("k", b"v")
    client.set("n", 1)
    reader = connect(READER)
    equal(reader.get("k"), b"v")
    # A refused store is "not stored" to this client, which it says as False.
    equal(reader.set("k", b"w"), False)
    equal(reader.get("k"), b"v")
    equal(reader.add("new", b"w"), False)
    for call in [
        lambda: reader.delete("k"),
        lambda: reader.incr("n", 1),
    ]:
        equal(isinstance(refused(call), pylibmc.Error), True)
        # Were the answer one that libmemcached does not know, it would now call the server dead.
        equal(reader.get("k"), b"v")
    reader.flush_all()
    equal(client.get("k"), b"v")
    equal(client.get("n"), 1)


def wrong_password():
    stranger = connect(WRONG)
    equal(isinstance(refused(lambda: stranger.get("k")), pylibmc.Error), True)
    equal(isinstance(refused(lambda: stranger.set("k", b"w")), pylibmc.Error), True)


def tls():
    raise Skip("libmemcached speaks no TLS")


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
    ]
)
