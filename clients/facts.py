"""Runs one function per fact and prints one line for each; shared by the Python clients."""

import os
import sys
import time
import traceback

# Key and value together may take 1 MiB; keys here are short.
LARGE = bytes(range(256)) * 4096
LARGE = LARGE[: 1024 * 1024 - 512]
TOO_LARGE = b"x" * (1024 * 1024 + 1)
# Every byte there is, and what a text protocol might trip over.
BINARY = bytes(range(256)) + b"\r\nEND\r\nVALUE a 0 1\r\n\0\r\n"


class Server:
    """One address, taken from a variable that holds host:port."""

    def __init__(self, variable):
        self.address = os.environ[variable]
        host, port = self.address.rsplit(":", 1)
        self.host, self.port = host, int(port)
        self.pair = (self.host, self.port)


SERVER = Server("LARDER_SERVER")
TLS_SERVER = Server("LARDER_TLS_SERVER")
TLS_CA = os.environ["LARDER_TLS_CA"]
USER = (os.environ["LARDER_USERNAME"], os.environ["LARDER_PASSWORD"])
READER = (os.environ["LARDER_READER_USERNAME"], os.environ["LARDER_READER_PASSWORD"])
WRONG = (USER[0], "not-the-password")


class Skip(Exception):
    """The client has no such operation."""


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"wanted {wanted!r:.200}, got {got!r:.200}")


def refused(call):
    """The call must raise; returns the exception."""
    try:
        result = call()
    except Exception as error:
        return error
    raise AssertionError(f"was not refused, but returned {result!r:.200}")


def eventually(what, look, seconds=10):
    """Waits until look() is true; expiry counts in whole seconds, so it takes up to two."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s it did not happen that {what}")
        time.sleep(0.05)


def run(facts):
    """facts: pairs of name and function."""
    for name, check in facts:
        try:
            check()
            print(f"ok {name}")
        except Skip as reason:
            print(f"skip {name}: {reason}")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            print(f"FAIL {name}: {type(error).__name__}: {error}".replace("\n", " ")[:500])
        sys.stdout.flush()
