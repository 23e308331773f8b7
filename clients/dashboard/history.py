"""Gives a cache three months of history, so that its charts have something to show.

usage: history.py DATABASE CACHE

The database is the one of a `larder up` that runs. How a sample is stored: crates/control/src/series/sample.rs;
how latency is: crates/wire/src/control/latency.rs.
"""

import math
import sqlite3
import sys
import time

DAY = 86_400
# Numbers of figures.
CMD_GET, CMD_SET, GET_HITS, GET_MISSES, DELETE_HITS = 0, 1, 4, 5, 7
EVICTIONS, BYTES, CURR_ITEMS, CURR_CONNECTIONS = 18, 24, 25, 26
# Step in seconds, and how far back its rows go.
STEPS = [(60, DAY), (600, 7 * DAY), (3_600, 90 * DAY)]
LATENCY_STEPS = [(20, 3_600), (600, DAY), (3_600, 7 * DAY), (86_400, 90 * DAY)]
# What `larder up` calls its own proxy.
PROXY = "local"


def number(value):
    """LEB128."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def sample(at, seconds):
    """What happened in so many seconds: busy by day and quiet at night, with a mishap now and then."""
    day = (1 - math.cos(2 * math.pi * (at % DAY) / DAY)) / 2
    ripple = math.sin(at / 700) + math.sin(at / 213)
    gets = round((20 + 130 * day + 6 * ripple) * seconds)
    misses = round(gets * (0.06 + 0.02 * math.sin(at / 5_000) + (0.3 if at % 40_000 < 900 else 0)))
    figures = {
        CMD_GET: gets,
        CMD_SET: round(misses * 0.9),
        GET_HITS: gets - misses,
        GET_MISSES: misses,
        DELETE_HITS: round(gets * 0.02),
        EVICTIONS: round(max(0, day - 0.6) * 4 * seconds),
        BYTES: round((55 + 35 * day + ripple) * 2**20),
        CURR_ITEMS: round(40_000 + 30_000 * day),
        CURR_CONNECTIONS: round(12 + 20 * day + 2 * ripple),
    }
    pairs = sorted((figure, value) for figure, value in figures.items() if value)
    return b"".join(bytes([figure]) + number(value) for figure, value in pairs)


def latency(at):
    """A thousand requests: most take some 100 µs, a few far longer, more so by day."""
    day = (1 - math.cos(2 * math.pi * (at % DAY) / DAY)) / 2
    counts = {}
    for request in range(1_000):
        # Four ranges for each doubling, from 1,024 ns on.
        doublings = 6.2 + 0.8 * day + 0.2 * math.sin(at / 900) + 1.1 * (request / 1_000) ** 4
        doublings += 2.5 * (request > 970) + 2 * (request > 994) * (1 + math.sin(at / 2_000))
        counts[int(doublings * 4)] = counts.get(int(doublings * 4), 0) + 1
    pairs = b"".join(bytes([bucket]) + number(count) for bucket, count in sorted(counts.items()))
    return bytes([len(counts)]) + pairs


def main(path, cache):
    now = int(time.time())
    rows = [
        (step, at, cache, 0, sample(at, step))
        for step, back in STEPS
        for at in range((now - back) // step * step, now // step * step, step)
    ]
    latencies = [
        (step, at, latency(at))
        for step, back in LATENCY_STEPS
        for at in range((now - back) // step * step, now // step * step, step)
    ]
    database = sqlite3.connect(path, timeout=60)
    with database:
        database.execute("UPDATE caches SET created_at = ? WHERE id = ?", (now - 100 * DAY, cache))
        database.executemany("INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("INSERT OR IGNORE INTO series_servers (name) VALUES (?)", (PROXY,))
        of_proxy = "(SELECT id FROM series_servers WHERE name = ?)"
        insert = f"INSERT OR REPLACE INTO latency VALUES (?, ?, {of_proxy}, ?)"
        database.executemany(insert, [(step, at, PROXY, text) for step, at, text in latencies])
    database.close()


main(sys.argv[1], int(sys.argv[2]))
