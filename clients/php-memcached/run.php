<?php
// php-memcached: libmemcached from PHP, over the binary protocol with SASL.

[$host, $port] = explode(':', getenv('LARDER_SERVER'));
const LARGE_BYTES = 1024 * 1024 - 512; // Key and value together may take 1 MiB; keys here are short.
$bytes = implode('', array_map('chr', range(0, 255)));
$large = substr(str_repeat($bytes, 4096), 0, LARGE_BYTES);
$binary = $bytes . "\r\nEND\r\n\0\r\n";

class Skip extends Exception {}

function connect($username, $password)
{
    global $host, $port;
    $memcached = new Memcached();
    $memcached->setOptions([
        Memcached::OPT_BINARY_PROTOCOL => true,
        Memcached::OPT_COMPRESSION => false,
        Memcached::OPT_CONNECT_TIMEOUT => 10_000,
        Memcached::OPT_RECV_TIMEOUT => 10_000_000,
        Memcached::OPT_POLL_TIMEOUT => 10_000,
    ]);
    $memcached->setSaslAuthData($username, $password);
    $memcached->addServer($host, (int) $port);
    return $memcached;
}

function shown($value)
{
    return substr(var_export($value, true), 0, 200);
}

function equal($got, $wanted)
{
    if ($got !== $wanted) {
        throw new Exception('wanted ' . shown($wanted) . ', got ' . shown($got));
    }
}

function refused($memcached, $result, $code)
{
    equal([$result, $memcached->getResultCode()], [false, $code]);
}

function eventually($what, $look, $seconds = 10)
{
    $deadline = microtime(true) + $seconds;
    while (!$look()) {
        if (microtime(true) > $deadline) {
            throw new Exception("within $seconds s it did not happen that $what");
        }
        usleep(50_000);
    }
}

function missing()
{
    throw new Skip('the client has no such operation');
}

$client = connect(getenv('LARDER_USERNAME'), getenv('LARDER_PASSWORD'));

$facts = [
    'set' => function () use ($client) {
        equal($client->set('k', 'v1'), true);
    },
    'get' => function () use ($client) {
        equal($client->get('k'), 'v1');
        refused($client, $client->get('missing'), Memcached::RES_NOTFOUND);
    },
    'multi-get' => function () use ($client) {
        $values = [];
        foreach (range(0, 99) as $n) {
            $values["multi-$n"] = "of $n";
        }
        equal($client->setMulti($values), true);
        $got = $client->getMulti([...array_keys($values), 'missing'], Memcached::GET_PRESERVE_ORDER);
        equal($got, $values + ['missing' => null]);
    },
    'add' => function () use ($client) {
        equal($client->add('added', '1'), true);
        // Over the binary protocol memcached answers "exists" to an add that finds an item.
        refused($client, $client->add('added', '2'), Memcached::RES_DATA_EXISTS);
        equal($client->get('added'), '1');
    },
    'replace' => function () use ($client) {
        equal($client->replace('k', 'v2'), true);
        refused($client, $client->replace('missing', 'v'), Memcached::RES_NOTFOUND);
        equal($client->get('k'), 'v2');
    },
    'append' => function () use ($client) {
        equal($client->append('k', '>'), true);
        refused($client, $client->append('missing', '>'), Memcached::RES_NOTSTORED);
        equal($client->get('k'), 'v2>');
    },
    'prepend' => function () use ($client) {
        equal($client->prepend('k', '<'), true);
        equal($client->get('k'), '<v2>');
    },
    'cas' => function () use ($client) {
        $token = $client->get('k', null, Memcached::GET_EXTENDED)['cas'];
        equal($client->cas($token, 'k', 'v3'), true);
        refused($client, $client->cas($token, 'k', 'v4'), Memcached::RES_DATA_EXISTS);
        equal($client->get('k'), 'v3');
    },
    'incr' => function () use ($client) {
        equal($client->increment('n', 5, 10), 10);
        equal($client->increment('n', 5), 15);
        refused($client, $client->increment('missing'), Memcached::RES_NOTFOUND);
    },
    'decr' => function () use ($client) {
        equal($client->decrement('n', 4), 11);
        equal($client->decrement('n', 100), 0);
    },
    'touch' => function () use ($client) {
        $client->set('t', 'v');
        equal($client->touch('t', 1), true);
        refused($client, $client->touch('missing', 1), Memcached::RES_NOTFOUND);
        eventually('a touched item expires', fn () => $client->get('t') === false);
    },
    'gat' => fn () => missing(),
    'delete' => function () use ($client) {
        equal($client->delete('k'), true);
        refused($client, $client->delete('k'), Memcached::RES_NOTFOUND);
        refused($client, $client->get('k'), Memcached::RES_NOTFOUND);
    },
    'flush' => function () use ($client) {
        $client->set('k', 'v');
        equal($client->flush(), true);
        refused($client, $client->get('k'), Memcached::RES_NOTFOUND);
    },
    'large-value' => function () use ($client, $large) {
        equal($client->set('large', $large), true);
        equal($client->get('large'), $large);
    },
    'too-large' => function () use ($client) {
        refused($client, $client->set('large', str_repeat('x', 1024 * 1024 + 1)), Memcached::RES_E2BIG);
        refused($client, $client->get('large'), Memcached::RES_NOTFOUND);
    },
    'expiry' => function () use ($client) {
        equal($client->set('e', 'v', 1), true);
        eventually('an item expires', fn () => $client->get('e') === false);
    },
    'binary-safe' => function () use ($client, $binary) {
        equal($client->set('b', $binary), true);
        equal($client->get('b'), $binary);
    },
    'read-only' => function () use ($client) {
        $client->set('k', 'v');
        $client->set('n', '1');
        $reader = connect(getenv('LARDER_READER_USERNAME'), getenv('LARDER_READER_PASSWORD'));
        equal($reader->get('k'), 'v');
        // To libmemcached a refused write is "not stored". A status that it does not know would make
        // it reconnect, and on memcached's own "authentication error" an increment aborts PHP.
        refused($reader, $reader->set('k', 'w'), Memcached::RES_NOTSTORED);
        refused($reader, $reader->add('new', 'w'), Memcached::RES_NOTSTORED);
        refused($reader, $reader->append('k', 'w'), Memcached::RES_NOTSTORED);
        refused($reader, $reader->delete('k'), Memcached::RES_NOTSTORED);
        refused($reader, $reader->increment('n'), Memcached::RES_NOTSTORED);
        refused($reader, $reader->touch('k', 1), Memcached::RES_NOTSTORED);
        $reader->flush(); // It does not look at the answer.
        equal($reader->get('k'), 'v');
        equal($client->get('n'), '1');
    },
    'wrong-password' => function () {
        $stranger = connect(getenv('LARDER_USERNAME'), 'not-the-password');
        refused($stranger, $stranger->get('k'), Memcached::RES_AUTH_FAILURE);
    },
    'tls' => function () {
        throw new Skip('libmemcached speaks no TLS');
    },
];

foreach ($facts as $name => $check) {
    try {
        $check();
        echo "ok $name\n";
    } catch (Skip $reason) {
        echo "skip $name: {$reason->getMessage()}\n";
    } catch (Throwable $error) {
        fwrite(STDERR, "$error\n");
        echo "FAIL $name: " . strtr($error->getMessage(), "\n", ' ') . "\n";
    }
}
