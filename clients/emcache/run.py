"""emcache: the text protocol with memcached's own way to log in, asynchronous."""

import asyncio
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from facts import *

import emcache
from emcache.client_errors import AuthenticationError, CommandError, NotStoredStorageCommandError

loop = asyncio.new_event_loop()


def wait(awaitable):
    return loop.run_until_complete(awaitable)


def connect(server, login, **options):
    username, password = login
    address = emcache.MemcachedHostAddress(server.host, server.port)
    return wait(
        emcache.create_client(
            [address], timeout=10, max_connections=1, min_connections=1, username=username, password=password, **options
        )
    )


client = connect(SERVER, USER)


def value(key, of=None):
    item = wait((of or client).get(key))
    return item and item.value


def not_stored(awaitable):
    equal(isinstance(refused(lambda: wait(awaitable)), NotStoredStorageCommandError), True)


def set_():
    wait(client.set(b"k", b"v1"))


def get():
    equal(value(b"k"), b"v1")
    equal(value(b"missing"), None)


def multi_get():
    values = {b"multi-%d" % n: b"%d" % n for n in range(100)}
    for key, one in values.items():
        wait(client.set(key, one))
    items = wait(client.get_many([*values, b"missing"]))
    equal({key: item.value for key, item in items.items()}, values)


def add():
    wait(client.add(b"added", b"1"))
    not_stored(client.add(b"added", b"2"))
    equal(value(b"added"), b"1")


def replace():
    wait(client.replace(b"k", b"v2"))
    not_stored(client.replace(b"missing", b"v"))
    equal(value(b"k"), b"v2")


def append():
    wait(client.append(b"k", b">"))
    not_stored(client.append(b"missing", b">"))
    equal(value(b"k"), b"v2>")


def prepend():
    wait(client.prepend(b"k", b"<"))
    equal(value(b"k"), b"<v2>")


def cas():
    token = wait(client.gets(b"k")).cas
    wait(client.cas(b"k", b"v3", token))
    refused(lambda: wait(client.cas(b"k", b"v4", token)))
    equal(value(b"k"), b"v3")


def incr():
    wait(client.set(b"n", b"10"))
    equal(wait(client.increment(b"n", 5)), 15)
    refused(lambda: wait(client.increment(b"missing", 1)))


def decr():
    equal(wait(client.decrement(b"n", 4)), 11)
    equal(wait(client.decrement(b"n", 100)), 0)


def touch():
    wait(client.set(b"t", b"v"))
    wait(client.touch(b"t", 1))
    eventually("a touched item expires", lambda: value(b"t") is None)


def gat():
    wait(client.set(b"t", b"v"))
    equal(wait(client.gat(1, b"t")).value, b"v")
    eventually("an item that was got and touched expires", lambda: value(b"t") is None)


def delete():
    wait(client.delete(b"k"))
    equal(value(b"k"), None)


def flush():
    wait(client.set(b"k", b"v"))
    wait(client.flush_all(emcache.MemcachedHostAddress(SERVER.host, SERVER.port)))
    equal(value(b"k"), None)


def large_value():
    wait(client.set(b"large", LARGE))
    equal(value(b"large"), LARGE)


def too_large():
    error = refused(lambda: wait(client.set(b"large", TOO_LARGE)))
    equal(isinstance(error, CommandError), True)
    equal(value(b"large"), None)


def expiry():
    wait(client.set(b"e", b"v", exptime=1))
    eventually("an item expires", lambda: value(b"e") is None)


def binary_safe():
    wait(client.set(b"b", BINARY))
    equal(value(b"b"), BINARY)


def read_only():
    wait(client.set(b"k", b"v"))
    wait(client.set(b"n", b"1"))
    reader = connect(SERVER, READER)
    equal(value(b"k", reader), b"v")
    for call in [
        lambda: reader.set(b"k", b"w"),
        lambda: reader.add(b"new", b"w"),
        lambda: reader.append(b"k", b"w"),
        lambda: reader.delete(b"k"),
        lambda: reader.increment(b"n", 1),
        lambda: reader.touch(b"k", 1),
    ]:
        # Its exceptions differ; that the connection stays in step is what matters.
        refused(lambda: wait(call()))
        equal(value(b"k", reader), b"v")
    equal(value(b"n"), b"1")
    wait(reader.close())


def wrong_password():
    # The client logs why it could not connect, and tries again until its time is over.
    async def attempt():
        address = emcache.MemcachedHostAddress(SERVER.host, SERVER.port)
        username, password = WRONG
        stranger = await emcache.create_client([address], timeout=1, username=username, password=password)
        try:
            return await stranger.get(b"k")
        finally:
            await stranger.close()

    equal(isinstance(refused(lambda: wait(attempt())), (asyncio.TimeoutError, AuthenticationError)), True)


def tls():
    wait(client.set(b"k", b"v"))
    secure = connect(TLS_SERVER, USER, ssl=True, ssl_verify=True, ssl_extra_ca=TLS_CA)
    equal(value(b"k", secure), b"v")
    wait(secure.set(b"large", LARGE))
    equal(value(b"large", secure), LARGE)
    wait(secure.close())


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
wait(client.close())
