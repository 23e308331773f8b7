# Dalli: the binary protocol with SASL, from Ruby.

require "dalli"
require "logger"
require "openssl"

Dalli.logger.level = Logger::FATAL

SERVER, TLS_SERVER, TLS_CA = ENV.values_at("LARDER_SERVER", "LARDER_TLS_SERVER", "LARDER_TLS_CA")
USER = ENV.values_at("LARDER_USERNAME", "LARDER_PASSWORD")
READER = ENV.values_at("LARDER_READER_USERNAME", "LARDER_READER_PASSWORD")
BYTES = (0..255).to_a.pack("C*")
# Key and value together may take 1 MiB; keys here are short.
LARGE = (BYTES * 4096)[0, 1024 * 1024 - 512]
TOO_LARGE = "x" * (1024 * 1024 + 1)
BINARY = BYTES + "\r\nEND\r\n\0\r\n".b

class Skip < StandardError; end

# Values as they are, instead of marshalled.
module AsIs
  def self.dump(value) = value
  def self.load(value) = value
end

def connect(server, login, **options)
  username, password = login
  # The client's own size limit must not hide the server's.
  Dalli::Client.new(server, username: username, password: password, serializer: AsIs, compress: false,
                            socket_timeout: 10, value_max_bytes: 1 << 30, **options)
end

$client = connect(SERVER, USER)

def equal(got, wanted)
  raise "wanted #{wanted.inspect[0, 200]}, got #{got.inspect[0, 200]}" unless got == wanted
end

def refused
  result = yield
rescue StandardError => e
  e
else
  raise "was not refused, but returned #{result.inspect[0, 200]}"
end

def eventually(what, seconds = 10)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
  until yield
    raise "within #{seconds} s it did not happen that #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

    sleep 0.05
  end
end

FACTS = {
  "set" => lambda {
    equal($client.set("k", "v1").class, Integer)
  },
  "get" => lambda {
    equal($client.get("k"), "v1")
    equal($client.get("missing"), nil)
  },
  "multi-get" => lambda {
    values = (0...100).to_h { |n| ["multi-#{n}", n.to_s] }
    $client.multi { values.each { |key, value| $client.set(key, value) } }
    equal($client.get_multi(*values.keys, "missing"), values)
  },
  "add" => lambda {
    equal($client.add("added", "1").class, Integer)
    equal($client.add("added", "2"), false)
    equal($client.get("added"), "1")
  },
  "replace" => lambda {
    equal($client.replace("k", "v2").class, Integer)
    equal($client.replace("missing", "v"), 0)
    equal($client.get("k"), "v2")
  },
  "append" => lambda {
    equal($client.append("k", ">"), true)
    equal($client.append("missing", ">"), false)
    equal($client.get("k"), "v2>")
  },
  "prepend" => lambda {
    equal($client.prepend("k", "<"), true)
    equal($client.get("k"), "<v2>")
  },
  "cas" => lambda {
    _, token = $client.get_cas("k")
    equal($client.set_cas("k", "v3", token).class, Integer)
    equal($client.set_cas("k", "v4", token), false)
    equal($client.get("k"), "v3")
  },
  "incr" => lambda {
    equal($client.incr("n", 5, nil, 10), 10)
    equal($client.incr("n", 5), 15)
    equal($client.incr("missing", 1), nil)
  },
  "decr" => lambda {
    equal($client.decr("n", 4), 11)
    equal($client.decr("n", 100), 0)
  },
  "touch" => lambda {
    $client.set("t", "v")
    equal($client.touch("t", 1), true)
    equal($client.touch("missing", 1), nil)
    eventually("a touched item expires") { $client.get("t").nil? }
  },
  "gat" => lambda {
    $client.set("t", "v")
    equal($client.gat("t", 1), "v")
    eventually("an item that was got and touched expires") { $client.get("t").nil? }
  },
  "delete" => lambda {
    equal($client.delete("k"), true)
    equal($client.delete("k"), nil)
    equal($client.get("k"), nil)
  },
  "flush" => lambda {
    $client.set("k", "v")
    equal($client.flush, [true])
    equal($client.get("k"), nil)
  },
  "large-value" => lambda {
    $client.set("large", LARGE)
    equal($client.get("large").b, LARGE)
  },
  "too-large" => lambda {
    equal(refused { $client.set("large", TOO_LARGE) }.message, "Response error 3: Value too large")
    equal($client.get("large"), nil)
  },
  "expiry" => lambda {
    $client.set("e", "v", 1)
    eventually("an item expires") { $client.get("e").nil? }
  },
  "binary-safe" => lambda {
    $client.set("b", BINARY)
    equal($client.get("b").b, BINARY)
  },
  "read-only" => lambda {
    $client.set("k", "v")
    $client.set("n", "1")
    reader = connect(SERVER, READER)
    equal(reader.get("k"), "v")
    # A refused write is "not stored" to this client, which it says as false; it stays connected.
    equal(reader.set("k", "w"), false)
    equal(reader.add("new", "w"), false)
    equal(reader.append("k", "w"), false)
    equal(reader.delete("k"), false)
    equal(reader.incr("n", 1), false)
    reader.touch("k", 1) # It says true to everything but "not found".
    equal(reader.flush, [false])
    equal(reader.get("k"), "v")
    reader.multi { reader.set("k", "w") }
    equal(reader.get("k"), "v")
    equal($client.get("n"), "1")
  },
  "wrong-password" => lambda {
    error = refused { connect(SERVER, [USER[0], "not-the-password"]).get("k") }
    equal(error.is_a?(Dalli::DalliError), true)
    equal(error.message, "Error authenticating: 0x20")
  },
  "tls" => lambda {
    $client.set("k", "v")
    context = OpenSSL::SSL::SSLContext.new
    context.ca_file = TLS_CA
    context.verify_mode = OpenSSL::SSL::VERIFY_PEER
    secure = connect(TLS_SERVER, USER, ssl_context: context)
    equal(secure.get("k"), "v")
    secure.set("large", LARGE)
    equal(secure.get("large").b, LARGE)
  }
}.freeze

FACTS.each do |name, check|
  check.call
  puts "ok #{name}"
rescue Skip => e
  puts "skip #{name}: #{e.message}"
rescue StandardError => e
  warn e.full_message
  puts "FAIL #{name}: #{e.class}: #{e.message.tr("\n", ' ')}"
end
