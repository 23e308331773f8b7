// Drives the dashboard in a browser, as a person does, and prints one line per fact. The test in
// crates/testbed/tests/dashboard.rs starts a Larder and reads the lines.
//
// With LARDER_PICTURES every page is also kept as a picture: light, dark, and as wide as a phone. With
// LARDER_NODE_PIDS it is a cluster, whose nodes are these processes, and only what is other there is looked at.

const fs = require("fs");
const http = require("http");
const net = require("net");
const path = require("path");
const { chromium } = require("playwright-core");

const env = process.env;
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const PICTURES = env.LARDER_PICTURES;
// Of waiting for what a page does; a machine that is busy takes a while.
const PATIENCE_MS = 30_000;
const DESK = { width: 1000, height: 720 };
const PHONE = { width: 390, height: 780 };
// Of a long list its beginning says enough.
const PICTURE_HEIGHT_MAX = 1800;
// Colours that are just changing cannot be judged.
const STILL = { reducedMotion: "reduce" };

function equal(got, wanted, what) {
  if (got !== wanted) throw new Error(`${what}: wanted ${wanted}, got ${got}`);
}

async function eventually(what, look) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error(`it did not happen that ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

// Waits until a page says what it should.
async function becomes(get, wanted, what) {
  let got;
  await eventually("", async () => (got = await get()) === wanted)
    .catch(() => equal(got, wanted, what));
}

// Does what leads to another page, and waits for that page.
async function go(page, act) {
  const [answer] = await Promise.all([page.waitForNavigation(), act()]);
  return answer;
}

const click = (page, locator) => go(page, () => locator.click());

// One memcached connection that says whether it is still let in.
class Connection {
  constructor(username = env.LARDER_USERNAME, password = env.LARDER_PASSWORD, server = env.LARDER_SERVER) {
    const [host, port] = server.split(/:(?=\d+$)/);
    this.said = "";
    this.ended = false;
    this.socket = net.connect(Number(port), host);
    this.socket.on("data", (bytes) => { this.said += bytes; });
    this.socket.on("close", () => { this.ended = true; });
    this.socket.on("error", () => { this.ended = true; });
    this.socket.write(`set ${username} 0 0 ${password.length}\r\n${password}\r\n`);
  }

  async ask(requests, answer) {
    await eventually("the login is answered", () => this.said.includes("\r\n"));
    const from = this.said.length;
    this.socket.write(requests);
    await eventually(`${JSON.stringify(requests.slice(0, 80))} is answered with ${answer}`,
      () => this.said.slice(from).includes(answer));
    return this.said.slice(from);
  }

  async statistics() {
    const said = await this.ask("stats\r\n", "END\r\n");
    return Object.fromEntries([...said.matchAll(/STAT (\S+) (\S+)/g)].map(([, name, value]) => [name, value]));
  }
}

// What a browser must not do: ask elsewhere, or want what the page's own policy stops.
function watch(context, wrong) {
  const origin = new URL(env.LARDER_DASHBOARD).origin;
  context.on("request", (request) => {
    if (!request.url().startsWith(`${origin}/`)) wrong.push(`asked ${request.url()}`);
  });
  context.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) wrong.push(message.text());
  });
  context.on("weberror", (error) => wrong.push(String(error.error())));
}

// Another browser window, in which whoever has the page open is let in, too.
async function another(page, options) {
  const context = await page.context().browser().newContext({ ...STILL, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  await context.addCookies(await page.context().cookies(page.url()));
  return context;
}

// For the test, which looks for it in the log.
const secret = (text) => console.log(`secret ${text}`);

const FACTS = {};
const FACTS_OF_CLUSTER = {};
// Of the credential that is made, restricted and deleted.
let connection;
const seen = new Set();

// Looks at a page with axe: nothing serious may be wrong with it. Once for each name.
async function inspect(page, name) {
  if (seen.has(name)) return;
  seen.add(name);
  await page.evaluate(AXE);
  await faultless(page, name, {});
  await page.emulateMedia({ colorScheme: "dark" });
  await faultless(page, `${name} in the dark`, { runOnly: ["color-contrast"] });
  await page.setViewportSize(PHONE);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wide > 0) throw new Error(`${name} is ${wide} px wider than a phone`);
  for (const [look, size, colorScheme] of [["light", DESK, "light"], ["dark", DESK, "dark"], ["phone", PHONE, "light"]]) {
    if (!PICTURES) break;
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    const clip = { x: 0, y: 0, width: size.width, height: Math.min(height, PICTURE_HEIGHT_MAX) };
    await page.screenshot({ path: path.join(PICTURES, `dashboard-${name}-${look}.png`), fullPage: true, clip });
  }
  await page.setViewportSize(DESK);
  await page.emulateMedia({ colorScheme: "light" });
}

async function faultless(page, name, options) {
  const { violations } = await page.evaluate((options) => window.axe.run(document, options), options);
  const bad = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = bad.map(({ id, nodes }) => `${id} at ${nodes.map((node) => node.html).join(" and ")}`);
  if (told.length) throw new Error(`${name}: ${told.join("; ")}`);
}

async function main() {
  const chrome = await chromium.launch({
    executablePath: env.LARDER_CHROMIUM ?? "/usr/bin/chromium",
    timeout: 4 * PATIENCE_MS,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
    ],
  });
  const browser = await chrome.newContext({ viewport: DESK, ...STILL });
  browser.setDefaultTimeout(PATIENCE_MS);
  const wrong = [];
  watch(browser, wrong);
  let failed = false;
  try {
    const page = await browser.newPage();
    for (const [name, fact] of Object.entries(env.LARDER_NODE_PIDS ? FACTS_OF_CLUSTER : FACTS)) {
      try {
        await fact(page);
        console.log(`ok ${name}`);
      } catch (error) {
        failed = true;
        console.log(`FAIL ${name}: ${error.message.split("\n").slice(0, 4).join(" ")} (at ${page.url().replace(/sso\/.*/, "sso/…")})`);
      }
    }
    console.log(wrong.length ? `FAIL nothing-from-elsewhere: ${wrong.join("; ")}` : "ok nothing-from-elsewhere");
  } finally {
    await chrome.close();
  }
  process.exitCode = failed || wrong.length ? 1 : 0;
}

const heading = (page) => page.locator("h1").first().innerText();
const notice = (page) => page.locator(".notice[role=status]").innerText();
const open = (page, tab) =>
  click(page, page.getByRole("navigation", { name: /^Pages/ }).getByRole("link", { name: tab, exact: true }));
const button = (page, name) => page.getByRole("button", { name });

// Says yes to the page that asks.
async function confirm(page, question, name) {
  equal((await heading(page)).startsWith(question), true, `asks: ${question}`);
  await click(page, button(page, name));
}

FACTS["the-url-opens-the-dashboard"] = async (page) => {
  await page.goto(env.LARDER_DASHBOARD);
  equal(await heading(page), "Overview", "heading");
  equal(page.url().includes("sso"), false, "the secret is still in the address");
  for (const cookie of await page.context().cookies(page.url())) secret(cookie.value);
  secret(await page.locator("input[name=token]").first().inputValue());
};

FACTS["charts-tell-the-past"] = async (page) => {
  await click(page, page.getByRole("link", { name: "24 hours" }));
  const chart = page.locator("#chart-requests");
  await chart.getByText("In figures").click();
  const cells = await chart.getByRole("row", { name: /^gets/ }).getByRole("cell").allInnerTexts();
  equal(/^1[3-7]\d\/s$/.test(cells[3]), true, `most gets of a second, of ${cells}`);
  // Pointing at a chart reads it. The figures may have been renewed just now.
  await eventually("a point is read", async () => {
    await chart.locator("svg").hover({ force: true });
    return /^\d\d:\d\d: gets [\d.]+\/s, sets /.test(await chart.locator(".readout").innerText());
  });
  for (const name of ["hits", "memory", "evictions", "connections", "latency-local"]) {
    const line = await page.locator(`#chart-${name} path.one`).getAttribute("d");
    equal(line.length > 1000, true, `${name} has a line`);
  }
  // How long requests took, on an axis on which each power of ten has its room.
  const latency = page.locator("#chart-latency-local");
  await latency.getByText("In figures").click();
  const took = {};
  for (const row of await latency.locator("tbody tr").all()) {
    took[await row.getByRole("rowheader").innerText()] = (await row.getByRole("cell").allInnerTexts())[3];
  }
  equal(Object.keys(took).join(" "), "p50 p95 p99", "quantiles");
  equal(/^\d\d\d? µs$/.test(took.p50) && /^[\d.]+ ms$/.test(took.p99), true, `the longest, of ${Object.values(took)}`);
  const axis = (await latency.locator(".y span").allInnerTexts()).join(" ");
  equal(/^10 ms \d+ µs 10 µs$/.test(axis), true, `powers of ten, of ${axis}`);
  await click(page, page.getByRole("link", { name: "90 days" }));
  equal(await page.locator("#chart-hits path.one").count(), 1, "lines of 90 days");
  await click(page, page.getByRole("link", { name: "1 hour" }));
};

const tile = (page, label) =>
  page.locator(".tile").filter({ has: page.getByText(label, { exact: true }) }).locator(".value").innerText();

FACTS["figures-are-those-of-stats"] = async (page) => {
  const client = new Connection();
  for (let key = 0; key < 3; key += 1) await client.ask(`set k${key} 0 0 1\r\nx\r\n`, "STORED\r\n");
  for (let key = 0; key < 4; key += 1) await client.ask(`get k${key}\r\n`, "END\r\n");
  // Without a reload: the page asks by itself.
  await becomes(() => tile(page, "Hit rate"), "75 %", "hits among 4 gets");
  const said = await client.statistics();
  const { origin, pathname } = new URL(page.url());
  const login = Buffer.from(`${env.LARDER_USERNAME}:${env.LARDER_PASSWORD}`).toString("base64");
  const answer = await fetch(`${origin}/api/v2/caches/${pathname.split("/")[2]}/stats`, { headers: { Authorization: `Basic ${login}` } });
  const api = await answer.json();
  for (const [label, name, wanted] of [
    ["Gets", "cmd_get", "4"], ["Sets", "cmd_set", "3"], ["Items", "curr_items", "3"], ["Evictions", "evictions", "0"],
  ]) {
    equal(said[name], wanted, `${name} in stats`);
    equal(String(api[name]), wanted, `${name} in the API`);
    equal(await tile(page, label), wanted, `${name} on the page`);
  }
  await inspect(page, "overview");
  client.socket.destroy();
};

const credentials = (page) => page.locator("table.credentials tbody tr");
// Of those that are not primary there is one at a time.
const second = (page) => credentials(page).filter({ has: button(page, /^Delete/) });
const username = (row) => row.locator("code").first().innerText();

FACTS["credentials-are-added-and-shown"] = async (page) => {
  await open(page, "Credentials");
  await click(page, button(page, "Add new credentials"));
  equal(await credentials(page).count(), 2, "credentials");
  await inspect(page, "credentials");
  await click(page, page.getByRole("link", { name: `Show the password of ${env.LARDER_USERNAME}` }));
  equal(await page.locator(".secret").innerText(), env.LARDER_PASSWORD, "password");
  await click(page, page.getByRole("link", { name: `Hide the password of ${env.LARDER_USERNAME}` }));
  equal(await page.locator(".secret").count(), 0, "passwords shown");
};

FACTS["a-checkbox-holds-on-an-open-connection"] = async (page) => {
  const name = await username(second(page));
  await click(page, page.getByRole("link", { name: `Show the password of ${name}` }));
  const password = await page.locator(".secret").innerText();
  secret(password);
  connection = new Connection(name, password);
  await connection.ask("set mine 0 0 1\r\nx\r\n", "STORED\r\n");
  await second(page).getByRole("checkbox", { name: "write" }).uncheck();
  await becomes(() => second(page).locator("output").innerText(), "Saved", "the checkbox");
  const refused = connection.said.length;
  connection.socket.write("set mine 0 0 1\r\ny\r\n");
  await eventually("a write is refused", () => connection.said.slice(refused).includes("\r\n"));
  equal(connection.said.slice(refused).startsWith("STORED"), false, "stored");
  await connection.ask("get mine\r\n", "VALUE mine 0 1\r\nx\r\nEND\r\n");
};

FACTS["a-deleted-credential-ends-its-connection"] = async (page) => {
  await click(page, second(page).getByRole("button", { name: /^Delete/ }));
  await inspect(page, "confirm");
  await click(page, page.getByRole("link", { name: "Cancel" }));
  equal(connection.ended, false, "ended before anything was confirmed");
  await click(page, second(page).getByRole("button", { name: /^Delete/ }));
  await confirm(page, "Delete credential", "Delete it");
  equal(await credentials(page).count(), 1, "credentials");
  await eventually("the connection is closed", () => connection.ended);
};

FACTS["everything-can-be-done-by-keyboard"] = async (page) => {
  for (const tab of ["Overview", "Introspection", "Alerts", "Connect", "Settings", "Credentials"]) {
    await open(page, tab);
    await walk(page, tab);
  }
  const add = async () => {
    await reach(page, /^Add new/);
    await go(page, () => page.keyboard.press("Enter"));
  };
  await add();
  equal(await credentials(page).count(), 2, "credentials");
  await reach(page, /^Delete/);
  await go(page, () => page.keyboard.press("Enter"));
  await reach(page, /^Delete it/);
  await go(page, () => page.keyboard.press("Enter"));
  equal(await credentials(page).count(), 1, "credentials");
};

// Everything that can be used is reached, in the order in which it stands, and shows that it is.
async function walk(page, name) {
  await page.reload();
  const all = 'a[href], button, input:not([type="hidden"]), select, summary, [tabindex="0"]';
  const count = await page.evaluate((all) => {
    window.usable = () => [...document.querySelectorAll(all)].filter((one) => one.checkVisibility() && !one.disabled);
    return window.usable().length;
  }, all);
  for (let at = 0; at < count; at += 1) {
    await page.keyboard.press("Tab");
    const [is, outline, html] = await page.evaluate(() => {
      const one = document.activeElement;
      const style = getComputedStyle(one);
      return [window.usable().indexOf(one), style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth), one.outerHTML.slice(0, 90)];
    });
    equal(is, at, `${name}: what the ${at + 1}th Tab reaches (${html})`);
    equal(outline >= 2, true, `${name}: ${html} shows its focus`);
  }
}

// Presses Tab until this has the focus.
async function reach(page, name) {
  for (let tabs = 0; tabs < 80; tabs += 1) {
    await page.keyboard.press("Tab");
    const is = await page.evaluate(() => document.activeElement.ariaLabel ?? document.activeElement.textContent);
    if (name.test(is.trim())) return;
  }
  throw new Error(`no Tab reaches ${name}`);
}

FACTS["keys-and-prefixes-are-told"] = async (page) => {
  // Watched from the first look on.
  await open(page, "Introspection");
  const client = new Connection();
  const value = "x".repeat(100);
  let requests = "set user:1 0 0 5\r\nhello\r\nset user:2 0 0 5\r\nhello\r\n";
  for (let item = 0; item < 1500; item += 1) requests += `set item/${item} 0 0 100\r\n${value}\r\nget item/${item}\r\n`;
  requests += "get user:1\r\n".repeat(3000) + "get user:2\r\n".repeat(1200);
  requests += "get gone:1\r\n".repeat(2000) + "set counter_1 0 0 1\r\n7\r\n".repeat(2000);
  await client.ask(`${requests}mn\r\n`, "MN\r\n");
  client.socket.destroy();
  const first = async (list, count) => {
    const keys = await page.getByRole("region", { name: list }).locator("tbody th").allInnerTexts();
    return keys.slice(0, count).map((key) => key.trim()).join(" ");
  };
  await page.reload();
  equal(await first("Most hit", 2), "user:1 user:2", "most hit");
  equal(await first("Most missed", 1), "gone:1", "most missed");
  equal(await first("Most changed", 1), "counter_1", "most changed");
  equal((await first("Popular prefixes", 9)).includes("user:"), true, "prefixes");
  equal((await page.getByRole("region", { name: /^Hits with/ }).innerText()).includes("200 MiB"), true, "twice the plan");
  // Of one second no more than so many commands are recorded, so it is asked again.
  const commands = () => page.getByRole("region", { name: "Last commands" }).locator("tbody tr");
  await eventually("a command is told", async () => {
    const late = new Connection();
    await late.ask("get user:1\r\nget nobody\r\nset user:3 0 0 7\r\nsecrets\r\nmn\r\n", "MN\r\n");
    late.socket.destroy();
    await page.reload();
    return (await commands().first().innerText()).includes("user:3");
  });
  const told = (await commands().allInnerTexts()).slice(0, 3).map((row) => row.replace(/\d\d:\d\d:\d\d/, "").split(/\s+/).join(" "));
  equal(told.join("; "), "user:3 set STORED 7 bytes; nobody get MISS –; user:1 get HIT 5 bytes", "the last commands");
  equal((await page.locator("main").innerText()).includes("secrets"), false, "a value is told");

  const facts = () => page.locator(".facts").innerText();
  await click(page, page.getByRole("link", { name: "user:1", exact: true }).first());
  equal(/yes, 5 bytes[^]*Hits\s[\d,]+\s/.test(await facts()), true, "one key");
  await page.getByLabel("Key", { exact: true }).fill("nobody:1");
  await click(page, button(page, "Look it up"));
  equal(/\bno\b/.test(await facts()), true, "a key that is not there");

  await click(page, button(page, "Watch user:"));
  await page.getByLabel("Another prefix").fill("basket:");
  await click(page, page.getByRole("button", { name: "Watch it", exact: true }));
  const watched = page.getByRole("region", { name: "Watched prefixes" }).locator("tbody tr");
  equal(await watched.count(), 2, "watched");
  equal((await watched.filter({ hasText: "user:" }).innerText()).includes("user:1"), true, "what is under it");
  await inspect(page, "introspection");
  await click(page, button(page, "Watch basket: no longer"));
  equal(await watched.count(), 1, "watched");
};

FACTS["alerts-are-added-tried-and-deleted"] = async (page) => {
  // What stands in for Slack.
  const heard = [];
  const slack = http.createServer((request, answer) => {
    let body = "";
    request.on("data", (bytes) => { body += bytes; });
    request.on("end", () => {
      heard.push(body);
      answer.end("ok");
    });
  });
  await new Promise((done) => slack.listen(0, "127.0.0.1", done));
  const webhook = "/services/T0/B0/" + "quiteasecret".repeat(2);
  secret(webhook);

  await open(page, "Alerts");
  await page.getByLabel("E-mail address").fill("ann@example.org");
  await click(page, button(page, "Add e-mail"));
  await page.getByLabel("URL of").fill(`http://127.0.0.1:${slack.address().port}${webhook}`);
  await page.getByLabel("Channel").fill("#alerts");
  await click(page, button(page, "Add Slack"));
  equal((await page.locator("main").innerText()).includes(webhook), false, "the whole URL is shown");

  await page.getByLabel("When the").selectOption({ label: "memory usage reaches" });
  await page.getByLabel("Percent").fill("90");
  await page.getByLabel("Tell").selectOption({ index: 1 });
  await page.getByLabel("What to do then").fill("call Ann");
  await click(page, button(page, "Add the alert"));
  await click(page, page.getByRole("link", { name: /^Change/ }));
  equal(await page.getByLabel("What to do then").inputValue(), "call Ann", "what was said");
  await page.getByLabel("Percent").fill("70");
  await click(page, button(page, "Save the alert"));
  const alert = page.locator("table.list tbody tr");
  equal((await alert.innerText()).includes("memory usage is at or above 70 %"), true, "changed");
  await inspect(page, "alerts");
  await click(page, button(page, /^Send a test/));
  equal((await notice(page)).includes("on its way"), true, "said so");
  await eventually("the test arrives", () => heard.length > 0);
  const message = JSON.parse(heard[0]);
  equal(message.channel, "#alerts", "channel");
  equal(message.text.includes("call Ann"), true, message.text);

  await click(page, button(page, /^Delete the alert/));
  await confirm(page, "Delete the alert", "Delete it");
  equal(await alert.count(), 0, "alerts");
  await click(page, button(page, "Delete ann@example.org"));
  equal(await page.getByRole("region", { name: "Where alerts go" }).locator("tbody tr").count(), 1, "deliveries");
  slack.close();
  slack.closeAllConnections();
};

FACTS["snippets-are-filled-in"] = async (page) => {
  await open(page, "Connect");
  const clients = page.getByRole("navigation", { name: "Clients" });
  const labels = await clients.getByRole("link").allInnerTexts();
  equal(labels.length >= 9, true, "clients");
  const [host, port] = env.LARDER_SERVER.split(/:(?=\d+$)/);
  for (const label of labels) {
    await click(page, clients.getByRole("link", { name: label, exact: true }));
    const code = await page.locator("#snippet").innerText();
    for (const part of [host, port, env.LARDER_USERNAME, "MEMCACHIER_PASSWORD"]) {
      equal(code.includes(part), true, `${label} has ${part}`);
    }
    equal(code.includes(env.LARDER_PASSWORD), false, `${label} has the password`);
  }
  await click(page, clients.getByRole("link").first());
  await inspect(page, "connect");
};

FACTS["the-up-arrow-promotes"] = async (page) => {
  await open(page, "Credentials");
  await click(page, button(page, "Add new credentials"));
  const name = await username(second(page));
  await click(page, second(page).getByRole("button", { name: /^Promote/ }));
  equal(await username(credentials(page).filter({ hasText: "primary" }).filter({ hasNot: button(page, /^Delete/) })), name, "primary");
  equal((await notice(page)).startsWith("Promoted"), true, "said so");
};

const memory = async (page, plan) => {
  await page.getByLabel("Memory").selectOption(plan);
  await click(page, button(page, "Change plan"));
};

FACTS["the-plan-is-changed"] = async (page) => {
  await open(page, "Settings");
  await inspect(page, "settings");
  await memory(page, "250");
  equal((await page.locator(".who").innerText()).includes("250 MiB"), true, "larger at once");
  await memory(page, "100");
  await confirm(page, "Change shop to the smaller plan", "Change the plan");
  equal((await page.locator(".who").innerText()).includes("100 MiB"), true, "smaller after asking");
};

FACTS["the-cache-is-disabled-and-enabled"] = async (page) => {
  await click(page, button(page, "Disable cache"));
  await confirm(page, "Disable shop", "Disable it");
  equal(await page.locator(".notice.bad").count(), 1, "said on every page");
  await click(page, button(page, "Enable cache"));
  equal(await notice(page), "The cache is enabled.", "notice");
};

FACTS["flushing-asks-and-forgets"] = async (page) => {
  await click(page, button(page, "Flush cache"));
  await confirm(page, "Forget all items", "Forget all items");
  await open(page, "Overview");
  await becomes(() => tile(page, "Items"), "0", "items");
};

FACTS["rotating-takes-one-to-the-new-url"] = async (page) => {
  await open(page, "Settings");
  await click(page, button(page, "Rotate SSO secret"));
  const through = [];
  const note = (response) => through.push(new URL(response.url()).pathname);
  page.on("response", note);
  await confirm(page, "Give this dashboard another URL", "Rotate SSO secret");
  page.off("response", note);
  const fresh = through.find((path) => path.startsWith("/sso/"));
  equal(fresh !== undefined && !env.LARDER_DASHBOARD.endsWith(fresh), true, "by another URL");
  secret(fresh.split("/").pop());
  equal(await heading(page), "Settings", "heading");
  equal((await notice(page)).includes("new URL"), true, "said so");
  const old = await page.goto(env.LARDER_DASHBOARD);
  equal(old.status(), 403, "the old URL");
  await inspect(page, "failure");
  const opened = await page.goto(new URL(fresh, env.LARDER_DASHBOARD).href);
  equal(opened.status(), 200, "the new URL");
};

FACTS["it-works-without-script"] = async (page) => {
  const plain = await another(page, { javaScriptEnabled: false });
  const other = await plain.newPage();
  const address = page.url().replace(/\?.*/, "");
  for (const [tab, part] of [
    ["", ".tile"], ["introspection", "#key"], ["alerts", "#email"], ["connect", "#snippet"], ["settings", "select"],
    ["credentials", "table"],
  ]) {
    await other.goto(`${address}/${tab}`.replace(/\/$/, ""));
    await other.locator(part).first().waitFor();
  }
  await click(other, second(other).getByRole("button", { name: /^Delete/ }));
  await confirm(other, "Delete credential", "Delete it");
  const row = credentials(other).first();
  await row.getByRole("checkbox", { name: "API" }).uncheck();
  await click(other, row.getByRole("button", { name: /^Save/ }));
  equal(await row.getByRole("checkbox", { name: "API" }).isChecked(), false, "saved");
  await plain.close();
};

FACTS["the-policy-stops-what-no-page-should-do"] = async (page) => {
  const context = await another(page, {});
  const wrong = [];
  watch(context, wrong);
  const other = await context.newPage();
  await other.goto(page.url());
  equal(wrong.length, 0, "wrong by itself");
  const wanted = ["connect-src", "frame-src", "img-src", "script-src-elem", "style-src-attr"];
  const stopped = await other.evaluate((count) => new Promise((done) => {
    const seen = new Set();
    document.addEventListener("securitypolicyviolation", (event) => {
      seen.add(event.effectiveDirective);
      if (seen.size === count) done([...seen].sort().join(" "));
    });
    const html = '<img src="http://127.0.0.1:1/x.png"><p style="color: red">x</p><iframe src="/"></iframe>';
    document.body.insertAdjacentHTML("beforeend", html);
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    document.body.append(script);
    fetch("http://127.0.0.1:1/").catch(() => {});
  }), wanted.length);
  equal(stopped, wanted.join(" "), "stopped");
  equal(await other.evaluate(() => window.ran), undefined, "the script ran");
  // And who watches all other pages would have noticed.
  await eventually("the watch sees it", () => wrong.length > 0);
  await context.close();
};

// Fills in the operators' login.
async function enter(page, password) {
  await page.getByLabel("Name").fill(env.LARDER_OPERATOR);
  await page.getByLabel("Password").fill(password);
  await go(page, () => page.keyboard.press("Enter"));
}

FACTS["operators-log-in-and-look"] = async (page) => {
  const origin = new URL(env.LARDER_DASHBOARD).origin;
  await page.goto(`${origin}/`);
  await inspect(page, "entrance");
  await click(page, page.getByRole("link", { name: "Log in" }));
  await enter(page, "not the password");
  equal((await page.getByRole("alert").innerText()).includes("wrong"), true, "a wrong password is said");
  await inspect(page, "login");
  await enter(page, env.LARDER_OPERATOR_PASSWORD);
  equal(await heading(page), "Caches", "heading");
  for (const cookie of await page.context().cookies(page.url())) secret(cookie.value);
  await inspect(page, "operator-caches");
  await page.getByRole("searchbox").fill("shop");
  await go(page, () => page.keyboard.press("Enter"));
  equal(await page.locator("tbody tr").count(), 1, "found");
  await click(page, page.getByRole("link", { name: "shop" }));
  await inspect(page, "operator-cache");
  for (const [tab, name] of [["Top caches", "operator-top"], ["Nodes", "operator-nodes"], ["Audit log", "operator-log"]]) {
    await open(page, tab);
    equal(await heading(page), tab, "heading");
    await inspect(page, name);
  }
  equal((await page.locator("tbody").innerText()).includes("credential promoted"), true, "the log has it");
};

FACTS["a-rule-is-shown-before-it-is-made"] = async (page) => {
  await open(page, "IP rules");
  await page.getByLabel("Address or network").fill("203.0.113.0/24");
  await page.getByLabel("Cache").fill("shop");
  await page.getByLabel("Reason").fill("a flood");
  await click(page, button(page, "Show whom it hits"));
  await inspect(page, "operator-rule");
  await click(page, page.locator("main form button").first());
  const rows = page.locator("tbody tr");
  equal(await rows.count(), 1, "rules");
  equal((await rows.innerText()).includes("a flood"), true, "reason");
  await inspect(page, "operator-rules");
  await click(page, button(page, /^Remove/));
  await click(page, page.locator("main form button").first());
  equal(await rows.count(), 0, "rules");
};

FACTS["an-operator-visits-a-cache"] = async (page) => {
  await open(page, "Caches");
  await click(page, page.getByRole("link", { name: "shop" }));
  await click(page, button(page, "Open its dashboard"));
  equal(await heading(page), "Overview", "heading");
  equal(await page.locator(".notice.warn", { hasText: env.LARDER_OPERATOR }).count(), 1, "said that he visits");
  await click(page, page.getByRole("link", { name: /^Back to the operators/ }));
  await click(page, button(page, "Log out"));
  equal(await heading(page), "Operators", "heading");
  await page.goBack();
  await page.reload();
  equal(await heading(page), "Operators", "what was seen before");
};

FACTS_OF_CLUSTER["commands-of-every-proxy-are-told"] = async (page) => {
  await page.goto(env.LARDER_DASHBOARD);
  await open(page, "Introspection");
  const servers = env.LARDER_SERVER.split(",");
  const rows = page.getByRole("region", { name: "Last commands" }).locator("tbody tr");
  await eventually("each proxy has told of its command", async () => {
    for (const server of servers) {
      const client = new Connection(undefined, undefined, server);
      await client.ask(`get from:${server}\r\n`, "END\r\n");
      client.socket.destroy();
    }
    await page.reload();
    const told = await rows.allInnerTexts();
    return servers.every((server) => told.some((row) => row.includes(`from:${server}`) && row.split(server).length === 3));
  });
  await inspect(page, "introspection-cluster");
};

FACTS_OF_CLUSTER["nodes-are-told-and-one-that-is-gone-is-named"] = async (page) => {
  await page.goto(`${new URL(env.LARDER_DASHBOARD).origin}/operator/login`);
  await enter(page, env.LARDER_OPERATOR_PASSWORD);
  await open(page, "Nodes");
  const pids = env.LARDER_NODE_PIDS.split(",").map(Number);
  const [nodes, backends] = [page.locator("tbody").first().locator("tr"), page.locator("tbody").last().locator("tr")];
  await eventually("nothing is wrong", async () => {
    await page.reload();
    return (await page.locator(".notice").allInnerTexts()).join().startsWith("Nothing is wrong");
  });
  equal(await nodes.filter({ hasText: "good" }).count(), pids.length, "good nodes");
  const shares = (await backends.locator("td:last-child").allInnerTexts()).map(parseFloat);
  const sum = shares.reduce((sum, share) => sum + share, 0);
  equal(Math.abs(sum - 100) < 1 && shares.length >= pids.length, true, `all slots, of ${shares}`);
  const revisions = new Set(await nodes.locator('[data-label="Revision"]').allInnerTexts());
  equal(revisions.size, 1, "revisions");
  const digests = new Set(await nodes.locator('[data-label="Digest"]').allInnerTexts());
  equal(digests.size, 1, "digests");
  await inspect(page, "operator-nodes-cluster");

  const gone = await nodes.last().locator("th").innerText();
  process.kill(pids[pids.length - 1], "SIGKILL");
  await eventually("the node is named", async () => {
    await page.reload();
    return (await page.locator(".notice.bad").allInnerTexts()).some((finding) => finding.includes(gone));
  });
  equal(await nodes.filter({ hasText: "good" }).count() < pids.length, true, "all nodes are good");
  await inspect(page, "operator-nodes-broken");
};

main().catch((error) => {
  console.log(`FAIL browser: ${error.message.split("\n")[0]}`);
  process.exitCode = 1;
});
