"""meta-memcache: the meta commands, from Python."""

import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from facts import *

from meta_memcache import (
    CacheClient,
    ConnectionPool,
    Key,
    LeasePolicy,
    MemcacheError,
    MixedSerializer,
    ServerAddress,
    SetMode,
    StalePolicy,
)
from meta_memcache.base.base_serializer import BaseSerializer, EncodedValue


class AsIs(BaseSerializer):
    """Values as they are, instead of compressed."""

    def serialize(self, key, value):
        return EncodedValue(data=value, encoding_id=0)

    def unserialize(self, data, encoding_id):
        return bytes(data)


def connect(server, login, serializer=AsIs()):
    """The client leaves logging in to the socket it is given."""
    username, password = login

    def make_socket():
        made = socket.create_connection(server.pair, timeout=10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sendall(f"set {username} 0 0 {len(password)}\r\n{password}\r\n".encode())
        answer = made.recv(100)
        if answer != b"STORED\r\n":
            raise ConnectionError(f"login refused: {answer!r}")
        return made

    def make_pool(address):
        return ConnectionPool(
            server=str(address), socket_factory_fn=make_socket, initial_pool_size=1, max_pool_size=1
        )

    address = ServerAddress(server.host, server.port)
    return CacheClient.cache_client_from_servers([address], make_pool, serializer=serializer)


client = connect(SERVER, USER)
# Numbers it reads only through its own serializer.
counters = connect(SERVER, USER, serializer=MixedSerializer())
FOR_EVER = 0


def set_():
    equal(client.set("k", b"v1", FOR_EVER), True)


def get():
    equal(client.get("k"), b"v1")
    equal(client.get("missing"), None)


def multi_get():
    values = {Key(f"multi-{n}"): b"%d" % n for n in range(100)}
    for key, value in values.items():
        client.set(key, value, FOR_EVER)
    equal(client.multi_get([*values, Key("missing")]), {**values, Key("missing"): None})


def add():
    equal(client.set("added", b"1", FOR_EVER, set_mode=SetMode.ADD), True)
    equal(client.set("added", b"2", FOR_EVER, set_mode=SetMode.ADD), False)
    equal(client.get("added"), b"1")


def replace():
    equal(client.set("k", b"v2", FOR_EVER, set_mode=SetMode.REPLACE), True)
    equal(client.set("missing", b"v", FOR_EVER, set_mode=SetMode.REPLACE), False)
    equal(client.get("k"), b"v2")


def append():
    equal(client.set("k", b">", FOR_EVER, set_mode=SetMode.APPEND), True)
    equal(client.set("missing", b">", FOR_EVER, set_mode=SetMode.APPEND), False)
    equal(client.get("k"), b"v2>")


def prepend():
    equal(client.set("k", b"<", FOR_EVER, set_mode=SetMode.PREPEND), True)
    equal(client.get("k"), b"<v2>")


def cas():
    value, token = client.get_cas("k")
    equal(client.set("k", b"v3", FOR_EVER, cas_token=token), True)
    equal(client.set("k", b"v4", FOR_EVER, cas_token=token), False)
    equal(client.get("k"), b"v3")


def incr():
    equal(counters.delta_initialize_and_get("n", 5, 10, FOR_EVER), 10)
    equal(counters.delta_and_get("n", 5), 15)
    equal(counters.delta_and_get("missing", 1), None)


def decr():
    equal(counters.delta_and_get("n", -4), 11)
    equal(counters.delta_and_get("n", -100), 0)


def touch():
    client.set("t", b"v", FOR_EVER)
    equal(client.touch("t", 1), True)
    equal(client.touch("missing", 1), False)
    eventually("a touched item expires", lambda: client.get("t") is None)


def gat():
    client.set("t", b"v", FOR_EVER)
    equal(client.get("t", touch_ttl=1), b"v")
    eventually("an item that was got and touched expires", lambda: client.get("t") is None)


def delete():
    equal(client.delete("k"), True)
    equal(client.delete("k"), False)
    equal(client.get("k"), None)


def flush():
    raise Skip("the client has no such operation")


def large_value():
    equal(client.set("large", LARGE, FOR_EVER), True)
    equal(client.get("large"), LARGE)


def too_large():
    equal(isinstance(refused(lambda: client.set("large", TOO_LARGE, FOR_EVER)), MemcacheError), True)
    equal(client.get("large"), None)


def expiry():
    equal(client.set("e", b"v", 1), True)
    eventually("an item expires", lambda: client.get("e") is None)


def binary_safe():
    equal(client.set("b", BINARY, FOR_EVER), True)
    equal(client.get("b"), BINARY)
    # The client sends a key that is not ASCII as base64.
    key = Key("schlüssel mit leerzeichen")
    equal(client.set(key, b"v", FOR_EVER), True)
    equal(client.get(key), b"v")


def read_only():
    client.set("k", b"v", FOR_EVER)
    client.set("n", b"1", FOR_EVER)
    reader = connect(SERVER, READER)
    equal(reader.get("k"), b"v")
    for call in [
        lambda: reader.set("k", b"w", FOR_EVER),
        lambda: reader.set("new", b"w", FOR_EVER, set_mode=SetMode.ADD),
        lambda: reader.delete("k"),
        lambda: reader.delta("n", 1),
        lambda: reader.touch("k", 1),
        lambda: reader.get_or_lease("missing", LeasePolicy()),
    ]:
        equal(isinstance(refused(call), MemcacheError), True)
        equal(reader.get("k"), b"v")
    equal(client.get("n"), b"1")


def wrong_password():
    equal(isinstance(refused(lambda: connect(SERVER, WRONG).get("k")), MemcacheError), True)


def tls():
    raise Skip("the client takes the bare descriptor of the socket it is given")


def lease():
    # The first to miss gets the right to fill the item; nobody waits here, so the second gives up.
    at_once = LeasePolicy(ttl=30, miss_retries=1, miss_retry_wait=0)
    equal(client.get_or_lease("leased", at_once), None)
    other = connect(SERVER, USER)
    equal(other.get_or_lease("leased", at_once), None)
    value, token = client.get_cas("leased")
    equal(client.set("leased", b"filled", FOR_EVER), True)
    equal(other.get_or_lease("leased", at_once), b"filled")


def stale():
    client.set("s", b"old", FOR_EVER)
    _, token = client.get_cas("s")
    equal(client.invalidate("s", stale_policy=StalePolicy(mark_stale_on_deletion_ttl=30)), True)
    # The first reader is told to refill it, the next gets the stale value.
    equal(client.get("s"), None)
    equal(connect(SERVER, USER).get("s"), b"old")
    client.set("s", b"new", FOR_EVER)
    equal(client.get("s"), b"new")


def noreply():
    for n in range(100):
        client.set("silent", b"%d" % n, FOR_EVER, no_reply=True)
    equal(client.get("silent"), b"99")


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
        ("lease", lease),
        ("stale", stale),
        ("noreply", noreply),
    ]
)
