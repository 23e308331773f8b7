//! Code that connects an application to its cache, in the usual languages: a table, filled in with the
//! cache's servers and username. The password stays out of it and is read from the environment.
//!
//! All are run against Larder as they stand here (`crates/testbed/tests/dashboard.rs`), but for xmemcached
//! and Go's mc, which Debian does not have.

/// One client, and how to use it.
pub(super) struct Snippet {
    pub(super) id: &'static str,
    pub(super) label: &'static str,
    /// How the client is installed; one command or one line of a file.
    pub(super) install: &'static str,
    /// Where the code belongs, or what is worth knowing.
    pub(super) note: &'static str,
    code: &'static str,
}

impl Snippet {
    /// The code for a cache with these servers (`host:port` each) and this username.
    pub(super) fn filled(&self, servers: &[String], username: &str) -> String {
        let join = |with: &str, each: &dyn Fn(&str) -> String| {
            servers.iter().map(|server| each(server)).collect::<Vec<_>>().join(with)
        };
        let pair = |open: &str, close: &str, server: &str| {
            let (host, port) = server.rsplit_once(':').unwrap_or((server, "11211"));
            let host = host.trim_start_matches('[').trim_end_matches(']');
            format!("{open}\"{host}\", {port}{close}")
        };
        self.code
            .replace("@LIST@", &join(", ", &|server| format!("\"{server}\"")))
            .replace("@COMMAS@", &servers.join(","))
            .replace("@SPACES@", &servers.join(" "))
            .replace("@BRACKETS@", &join(", ", &|server| pair("[", "]", server)))
            .replace("@TUPLE@", &pair("(", ")", servers.first().map_or("", String::as_str)))
            .replace("@USERNAME@", username)
    }
}

/// Every client that the page knows; the first is shown when none was chosen.
pub(super) const SNIPPETS: &[Snippet] = &[
    Snippet {
        id: "pylibmc",
        label: "Python (pylibmc)",
        install: "pip install pylibmc",
        note: "A C library underneath; the quickest from Python.",
        code: r#"import os
import pylibmc

cache = pylibmc.Client(
    [@LIST@],
    binary=True,
    username="@USERNAME@",
    password=os.environ["MEMCACHIER_PASSWORD"],
    behaviors={
        "tcp_nodelay": True,
        "tcp_keepalive": True,
        "connect_timeout": 2000,     # ms
        "send_timeout": 750_000,     # µs
        "receive_timeout": 750_000,  # µs
        "remove_failed": 1,
        "retry_timeout": 2,
        "dead_timeout": 30,
    },
)

cache.set("greeting", "hello", time=60)
print(cache.get("greeting"))
"#,
    },
    Snippet {
        id: "pymemcache",
        label: "Python (pymemcache)",
        install: "pip install pymemcache",
        note: "Pure Python. It knows no passwords, so a few lines log in on every new connection.",
        code: r#"import os
from pymemcache.client.base import Client


class LarderClient(Client):
    """Logs in as the first thing on every new connection."""

    def _connect(self):
        super()._connect()
        self.set("@USERNAME@", os.environ["MEMCACHIER_PASSWORD"], noreply=False)


cache = LarderClient(@TUPLE@, connect_timeout=2, timeout=0.75)

cache.set("greeting", "hello", expire=60, noreply=False)
print(cache.get("greeting").decode())
"#,
    },
    Snippet {
        id: "django",
        label: "Django",
        install: "pip install pylibmc",
        note: "In settings.py.",
        code: r#"import os

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.memcached.PyLibMCCache",
        "LOCATION": [@LIST@],
        "TIMEOUT": 300,
        "OPTIONS": {
            "binary": True,
            "username": "@USERNAME@",
            "password": os.environ["MEMCACHIER_PASSWORD"],
            "behaviors": {
                "tcp_nodelay": True,
                "tcp_keepalive": True,
                "connect_timeout": 2000,
                "send_timeout": 750_000,
                "receive_timeout": 750_000,
                "remove_failed": 1,
                "retry_timeout": 2,
                "dead_timeout": 30,
            },
        },
    }
}
"#,
    },
    Snippet {
        id: "dalli",
        label: "Ruby (Dalli)",
        install: "gem install dalli -v '~> 3.2'",
        note: "Dalli 3 speaks the binary protocol, which carries username and password.",
        code: r#"require "dalli"

cache = Dalli::Client.new(
  [@LIST@],
  username: "@USERNAME@",
  password: ENV.fetch("MEMCACHIER_PASSWORD"),
  failover: true,
  socket_timeout: 1.5,
  socket_failure_delay: 0.2,
  down_retry_delay: 60
)

cache.set("greeting", "hello", 60)
puts cache.get("greeting")
"#,
    },
    Snippet {
        id: "rails",
        label: "Ruby on Rails",
        install: "bundle add dalli --version '~> 3.2'",
        note: "In config/environments/production.rb.",
        code: r#"config.cache_store = :mem_cache_store, @LIST@, {
  username: "@USERNAME@",
  password: ENV.fetch("MEMCACHIER_PASSWORD"),
  failover: true,
  socket_timeout: 1.5,
  socket_failure_delay: 0.2,
  down_retry_delay: 60,
  pool: { size: ENV.fetch("RAILS_MAX_THREADS", 5).to_i }
}
"#,
    },
    Snippet {
        id: "memjs",
        label: "Node.js (memjs)",
        install: "npm install memjs",
        note: "",
        code: r#"const memjs = require("memjs");

const cache = memjs.Client.create("@COMMAS@", {
  username: "@USERNAME@",
  password: process.env.MEMCACHIER_PASSWORD,
  failover: true,
  timeout: 1,
  keepAlive: true,
});

cache.set("greeting", "hello", { expires: 60 })
  .then(() => cache.get("greeting"))
  .then(({ value }) => console.log(value.toString()))
  .finally(() => cache.close());
"#,
    },
    Snippet {
        id: "php",
        label: "PHP (memcached)",
        install: "apt-get install php-memcached",
        note: "The persistent id keeps connections open from page to page.",
        code: r#"<?php

$cache = new Memcached("larder");
if (!$cache->getServerList()) {
    $cache->setOptions([
        Memcached::OPT_BINARY_PROTOCOL => true,
        Memcached::OPT_TCP_NODELAY => true,
        Memcached::OPT_CONNECT_TIMEOUT => 2000,   // ms
        Memcached::OPT_POLL_TIMEOUT => 2000,      // ms
        Memcached::OPT_SEND_TIMEOUT => 750000,    // µs
        Memcached::OPT_RECV_TIMEOUT => 750000,    // µs
        Memcached::OPT_RETRY_TIMEOUT => 2,
    ]);
    $cache->setSaslAuthData("@USERNAME@", getenv("MEMCACHIER_PASSWORD"));
    $cache->addServers([@BRACKETS@]);
}

$cache->set("greeting", "hello", 60);
echo $cache->get("greeting"), "\n";
"#,
    },
    Snippet {
        id: "laravel",
        label: "Laravel",
        install: "apt-get install php-memcached",
        note: "Under 'stores' in config/cache.php; then set CACHE_STORE=memcached.",
        code: r#"'memcached' => [
    'driver' => 'memcached',
    'persistent_id' => 'larder',
    'sasl' => ['@USERNAME@', env('MEMCACHIER_PASSWORD')],
    'options' => [
        Memcached::OPT_BINARY_PROTOCOL => true,
        Memcached::OPT_TCP_NODELAY => true,
        Memcached::OPT_CONNECT_TIMEOUT => 2000,
        Memcached::OPT_POLL_TIMEOUT => 2000,
        Memcached::OPT_RETRY_TIMEOUT => 2,
    ],
    'servers' => array_map(
        fn ($server) => ['host' => $server[0], 'port' => $server[1], 'weight' => 100],
        [@BRACKETS@]
    ),
],
"#,
    },
    Snippet {
        id: "spymemcached",
        label: "Java (spymemcached)",
        install: "net.spy:spymemcached:2.12.3",
        note: "",
        code: r#"import net.spy.memcached.AddrUtil;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.auth.AuthDescriptor;
import net.spy.memcached.auth.PlainCallbackHandler;

public class Greeting {
    public static void main(String[] args) throws Exception {
        String password = System.getenv("MEMCACHIER_PASSWORD");
        PlainCallbackHandler login = new PlainCallbackHandler("@USERNAME@", password);
        ConnectionFactoryBuilder factory = new ConnectionFactoryBuilder()
            .setProtocol(ConnectionFactoryBuilder.Protocol.BINARY)
            .setAuthDescriptor(new AuthDescriptor(new String[] {"PLAIN"}, login));
        MemcachedClient cache = new MemcachedClient(factory.build(), AddrUtil.getAddresses("@SPACES@"));

        cache.set("greeting", 60, "hello").get();
        System.out.println(cache.get("greeting"));
        cache.shutdown();
    }
}
"#,
    },
    Snippet {
        id: "java",
        label: "Java (xmemcached)",
        install: "com.googlecode.xmemcached:xmemcached:2.4.8",
        note: "",
        code: r#"import java.net.InetSocketAddress;
import java.util.List;
import net.rubyeye.xmemcached.MemcachedClient;
import net.rubyeye.xmemcached.XMemcachedClientBuilder;
import net.rubyeye.xmemcached.auth.AuthInfo;
import net.rubyeye.xmemcached.command.BinaryCommandFactory;
import net.rubyeye.xmemcached.utils.AddrUtil;

public class Greeting {
    public static void main(String[] args) throws Exception {
        List<InetSocketAddress> servers = AddrUtil.getAddresses("@SPACES@");
        AuthInfo login = AuthInfo.plain("@USERNAME@", System.getenv("MEMCACHIER_PASSWORD"));
        XMemcachedClientBuilder builder = new XMemcachedClientBuilder(servers);
        for (InetSocketAddress server : servers) {
            builder.addAuthInfo(server, login);
        }
        builder.setCommandFactory(new BinaryCommandFactory());
        builder.setConnectTimeout(2000);
        builder.setHealSessionInterval(2000);
        MemcachedClient cache = builder.build();

        cache.set("greeting", 60, "hello");
        System.out.println((String) cache.get("greeting"));
        cache.shutdown();
    }
}
"#,
    },
    Snippet {
        id: "go",
        label: "Go (mc)",
        install: "go get github.com/memcachier/mc/v3",
        note: "",
        code: r#"package main

import (
	"fmt"
	"log"
	"os"

	"github.com/memcachier/mc/v3"
)

func main() {
	cache := mc.NewMC("@COMMAS@", "@USERNAME@", os.Getenv("MEMCACHIER_PASSWORD"))
	defer cache.Quit()

	if _, err := cache.Set("greeting", "hello", 0, 60, 0); err != nil {
		log.Fatal(err)
	}
	greeting, _, _, err := cache.Get("greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(greeting)
}
"#,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled_in() {
        let servers = ["10.0.0.1:11211".to_owned(), "[2001:db8::1]:11212".to_owned()];
        for snippet in SNIPPETS {
            let code = snippet.filled(&servers, "ANN");
            assert!(!code.contains('@') && code.contains("ANN"), "{}: {code}", snippet.id);
            assert!(code.contains("10.0.0.1"), "{}", snippet.id);
            assert!(code.contains("MEMCACHIER_PASSWORD"), "{}", snippet.id);
        }
        let php = SNIPPETS.iter().find(|snippet| snippet.id == "php").expect("there is one");
        let pairs = r#"[["10.0.0.1", 11211], ["2001:db8::1", 11212]]"#;
        assert!(php.filled(&servers, "ANN").contains(pairs));
    }
}
