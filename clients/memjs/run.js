// memjs: the binary protocol with SASL, from Node; the client MemCachier wrote.

const memjs = require("memjs");

const { LARDER_SERVER: SERVER } = process.env;
const USER = [process.env.LARDER_USERNAME, process.env.LARDER_PASSWORD];
const READER = [process.env.LARDER_READER_USERNAME, process.env.LARDER_READER_PASSWORD];
// Key and value together may take 1 MiB; keys here are short.
const LARGE = Buffer.alloc(1024 * 1024 - 512, Buffer.from([...Array(256).keys()]));
const TOO_LARGE = Buffer.alloc(1024 * 1024 + 1, "x");
const BINARY = Buffer.concat([Buffer.from([...Array(256).keys()]), Buffer.from("\r\nEND\r\n\0\r\n")]);

const quiet = { log() {} };

function connect([username, password]) {
  return memjs.Client.create(SERVER, { username, password, timeout: 10, conntimeout: 10, logger: quiet });
}

const client = connect(USER);

class Skip extends Error {}

const missing = () => {
  throw new Skip("the client has no such operation");
};

const shown = (value) => (Buffer.isBuffer(value) ? `${value.length} bytes ${value.subarray(0, 60)}` : String(value));

function equal(got, wanted) {
  const same = Buffer.isBuffer(got) ? Buffer.from(wanted ?? "").equals(got) && wanted !== null : got === wanted;
  if (!same) throw new Error(`wanted ${shown(wanted)}, got ${shown(got)}`);
}

async function refused(promise) {
  let result;
  try {
    result = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`was not refused, but returned ${shown(result)}`);
}

async function eventually(what, look) {
  const deadline = Date.now() + 10000;
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error(`within 10 s it did not happen that ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

const value = async (key, from = client) => (await from.get(key)).value;
const flush = (of) => new Promise((done, fail) => of.flush((error, results) => (error ? fail(error) : done(results))));

const facts = {
  async set() {
    equal(await client.set("k", "v1", {}), true);
  },
  async get() {
    equal(await value("k"), "v1");
    equal(await value("missing"), null);
  },
  "multi-get": async () => {
    // The client has no multi-get; a hundred gets in flight on one connection are its nearest.
    const keys = [...Array(100).keys()].map((n) => `multi-${n}`);
    await Promise.all(keys.map((key) => client.set(key, `of ${key}`, {})));
    const values = await Promise.all(keys.map((key) => value(key)));
    keys.forEach((key, at) => equal(values[at], `of ${key}`));
  },
  async add() {
    equal(await client.add("added", "1", {}), true);
    equal(await client.add("added", "2", {}), false);
    equal(await value("added"), "1");
  },
  async replace() {
    equal(await client.replace("k", "v2", {}), true);
    equal(await client.replace("missing", "v", {}), false);
    equal(await value("k"), "v2");
  },
  async append() {
    equal(await client.append("k", ">"), true);
    equal((await refused(client.append("missing", ">"))).message, "MemJS APPEND: Item not stored");
    equal(await value("k"), "v2>");
  },
  async prepend() {
    equal(await client.prepend("k", "<"), true);
    // This version of the client sends an append.
    equal(await value("k"), "v2><");
  },
  cas: missing,
  async incr() {
    equal((await client.increment("n", 5, { initial: 10 })).value, 10);
    equal((await client.increment("n", 5, {})).value, 15);
  },
  async decr() {
    equal((await client.decrement("n", 4, {})).value, 11);
    equal((await client.decrement("n", 100, {})).value, 0);
  },
  async touch() {
    await client.set("t", "v", {});
    equal(await client.touch("t", 1), true);
    equal(await client.touch("missing", 1), false);
    await eventually("a touched item expires", async () => (await value("t")) === null);
  },
  gat: missing,
  async delete() {
    equal(await client.delete("k"), true);
    equal(await client.delete("k"), false);
    equal(await value("k"), null);
  },
  async flush() {
    await client.set("k", "v", {});
    await flush(client);
    equal(await value("k"), null);
  },
  "large-value": async () => {
    equal(await client.set("large", LARGE, {}), true);
    equal(await value("large"), LARGE);
  },
  "too-large": async () => {
    equal((await refused(client.set("large", TOO_LARGE, {}))).message, "MemJS SET: Value too large");
    equal(await value("large"), null);
  },
  async expiry() {
    equal(await client.set("e", "v", { expires: 1 }), true);
    await eventually("an item expires", async () => (await value("e")) === null);
  },
  "binary-safe": async () => {
    equal(await client.set("b", BINARY, {}), true);
    equal(await value("b"), BINARY);
  },
  "read-only": async () => {
    await client.set("k", "v", {});
    await client.set("n", "1", {});
    const reader = connect(READER);
    equal(await value("k", reader), "v");
    const socket = reader.servers[0]._socket;
    const calls = [
      () => reader.set("k", "w", {}),
      () => reader.add("new", "w", {}),
      () => reader.append("k", "w"),
      () => reader.delete("k"),
      () => reader.increment("n", 1, {}),
      () => reader.touch("k", 1),
    ];
    for (const call of calls) {
      const error = await refused(call());
      equal(/not stored/i.test(error.message), true);
      equal(await value("k", reader), "v");
    }
    // This client takes an answer with the status of a failed login as a reason to reconnect.
    equal(reader.servers[0]._socket === socket, true);
    // It ignores what flush answers.
    await flush(reader);
    equal(await value("k"), "v");
    equal(await value("n"), "1");
    reader.close();
  },
  "wrong-password": async () => {
    const stranger = connect([USER[0], "not-the-password"]);
    equal(/authentication failed/.test(await refused(stranger.get("k"))), true);
    stranger.close();
  },
  tls() {
    throw new Skip("the client speaks no TLS");
  },
};

(async () => {
  for (const [name, check] of Object.entries(facts)) {
    try {
      await check();
      console.log(`ok ${name}`);
    } catch (error) {
      if (error instanceof Skip) console.log(`skip ${name}: ${error.message}`);
      else console.log(`FAIL ${name}: ${String(error?.message ?? error).replaceAll("\n", " ")}`);
    }
  }
  client.close();
})();
