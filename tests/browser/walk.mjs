// Walks every view of a running turnhook in a real browser: light, dark, narrow, without script, by keyboard alone.
// What it looks for: violations that axe finds, errors in the console, requests beyond loopback, forms that do not work.
import { createServer } from "node:http";
import { connect } from "node:net";
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { chromium } from "playwright-core";

const { TURNHOOK_PAGE: page_url, TURNHOOK_SOURCE: source, TURNHOOK_RECEIVER: receiver, SHOTS: shots, SMALL: small } = process.env;
const axe_path = createRequire(import.meta.url).resolve("axe-core");
const credentials = { username: "otto", password: "correct horse" };
const faults = [];
const fault = (what) => { faults.push(what); console.error(`FAULT: ${what}`); };

// A receiver that takes all but what is of users that begin with `dead`: those are dead letters at once.
createServer((request, response) => {
  let body = "";
  request.on("data", (part) => { body += part; });
  request.on("end", () => {
    const user = JSON.parse(body).data.user ?? "";
    response.writeHead(user.startsWith("dead") ? 422 : 204).end(user.startsWith("dead") ? "<b>no such customer</b>" : "");
  });
}).listen(Number(receiver), "127.0.0.1");

// coturn's side of a `direct` source.
const resp = (words) => Buffer.concat([Buffer.from(`*${words.length}\r\n`),
  ...words.flatMap((word) => [Buffer.from(`$${Buffer.byteLength(word)}\r\n`), Buffer.from(word), Buffer.from("\r\n")])]);
async function calls(users) {
  const socket = connect(Number(source), "127.0.0.1");
  await new Promise((done, failed) => socket.once("connect", done).once("error", failed));
  socket.resume();
  socket.write(resp(["SELECT", "0"]));
  users.forEach((user, n) => {
    const channel = (kind) => `turn/realm/example.org/user/1795413634:${user}/allocation/${String(n + 1).padStart(18, "0")}/${kind}`;
    const counters = (scale) => `rcvp=${scale * 10}, rcvb=${scale * 10400}, sentp=${scale * 7}, sentb=${scale * 7280}`;
    const status = `lifetime=600, type=UDP, local=127.0.0.1:3478, remote=192.0.2.7:${20000 + n}, ssl=NONE, cipher=NONE`;
    socket.write(resp(["PUBLISH", channel("status"), `new ${status}`]));
    socket.write(resp(["PUBLISH", channel("traffic"), counters(n + 1)]));
    socket.write(resp(["PUBLISH", channel("traffic/peer"), `rcvp=${(n + 1) * 7}, rcvb=${(n + 1) * 7000}, sentp=${(n + 1) * 10}, sentb=${(n + 1) * 10000}`]));
    if (user === "open") return;
    socket.write(resp(["PUBLISH", channel("status"), "deleted"]));
    socket.write(resp(["PUBLISH", channel("total_traffic"), counters(n + 1)]));
    socket.write(resp(["PUBLISH", channel("total_traffic/peer"), `rcvp=${(n + 1) * 7}, rcvb=${(n + 1) * 7000}, sentp=${(n + 1) * 10}, sentb=${(n + 1) * 10000}`]));
  });
  return socket;
}

const authorization = `Basic ${Buffer.from("otto:correct horse").toString("base64")}`;
const api = async (path) => (await fetch(`${page_url}/api/v1${path}`, { headers: { authorization } })).json();
async function until(what, holds) {
  for (const deadline = Date.now() + 60000; Date.now() < deadline;) {
    if (await holds().catch(() => false)) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`waited in vain for ${what}`);
}

const hostile = ["cust_42", "<script>alert(1)<\u002fscript>", "\"'><img src=x onerror=alert(1)>", "\u202egpj.exe", "x".repeat(400), "dead_anna", "dead_bert", "open"];
const socket = await calls(hostile);
await until("the dead letters", async () => (await api("/deliveries?state=dead")).items.length >= 4);
await until("the sessions", async () => (await api("/sessions")).items.length >= hostile.length);
const sessions = (await api("/sessions")).items;
const dead = (await api("/deliveries?state=dead")).items[0];

const blocked = await fetch(`${page_url}/api/v1/blocks/${encodeURIComponent(hostile[1])}`, {
  method: "PUT", headers: { authorization }, body: new URLSearchParams({ for: "2h", reason: "<i>no balance</i>" }),
});
if (!blocked.ok) throw new Error(`a user cannot be blocked: ${blocked.status}`);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});

async function open(options) {
  const context = await browser.newContext({ httpCredentials: credentials, ...options });
  const page = await context.newPage();
  page.on("request", (request) => {
    const host = new URL(request.url()).hostname;
    if (!["127.0.0.1", "localhost"].includes(host)) fault(`a request to ${request.url()}`);
  });
  page.on("console", (message) => {
    // Of a page that is meant to be missing.
    if (message.type() === "error" && !page.url().endsWith("/nothing")) fault(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => fault(`${page.url()}: ${error}`));
  page.on("dialog", (dialog) => { fault(`${page.url()}: a dialog: ${dialog.message()}`); dialog.dismiss(); });
  return page;
}

const views = ["/", "/sessions", `/sessions/${sessions[0].session_id}`, "/users/cust_42", `/users/${encodeURIComponent(hostile[1])}`,
  `/users/${encodeURIComponent(hostile[3])}`, `/users/${hostile[4]}`, "/deliveries", "/deliveries?state=dead",
  "/confirm/deliveries/replay?state=dead", "/confirm/deliveries/discard?state=dead", `/events/${dead.webhook_id}`, "/usage",
  "/usage?tz=Asia/Kolkata", "/blocks", `/confirm/block?user=${encodeURIComponent(hostile[1])}`, "/confirm/unblock?user=open", `/confirm/end?session=${sessions[0].session_id}`, "/endpoints", "/endpoints/billing", "/sources", "/sources/eu-1", "/nodes", "/audit",
  "/search?q=nobody", "/nothing"];
const looks = [
  ["light", { colorScheme: "light", viewport: { width: 1280, height: 900 } }],
  ["dark", { colorScheme: "dark", viewport: { width: 1280, height: 900 } }],
  ["narrow", { colorScheme: "light", viewport: { width: 360, height: 740 } }],
  ["plain", { colorScheme: "light", viewport: { width: 1280, height: 900 }, javaScriptEnabled: false }],
];
mkdirSync(shots, { recursive: true });
for (const [name, options] of small ? looks.slice(2, 3) : looks) {
  const page = await open(options);
  for (const [n, view] of views.entries()) {
    if (small && n % 4 !== 2) continue;
    const answer = await page.goto(page_url + view);
    if (answer.status() !== (view === "/nothing" ? 404 : 200)) fault(`${view}: ${answer.status()}`);
    if (await page.locator("h1").count() !== 1) fault(`${view}: not one heading`);
    if (name === "plain") continue;
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) fault(`${view} in ${name}: ${wide} pixels too wide`);
    // As the driver puts it in: the page's policy lets no other script run.
    await page.evaluate(`${(await import("node:fs")).readFileSync(axe_path, "utf8")}; 0`).catch((error) => fault(`axe: ${error}`));
    const found = await page.evaluate(() => axe.run());
    for (const violation of found.violations) {
      fault(`${view} in ${name}: ${violation.id}: ${violation.help}: ${violation.nodes.slice(0, 2).map((node) => node.html.slice(0, 200)).join(" | ")}`);
    }
    await page.screenshot({ path: `${shots}/${name}-${String(n).padStart(2, "0")}.png`, fullPage: true });
  }
  await page.context().close();
}

// By keyboard alone, and without script: find a user, then bring back the dead letters.
{
  const page = await open({ javaScriptEnabled: false });
  await page.goto(page_url);
  await page.keyboard.press("Tab");
  if ((await page.locator(":focus").textContent()) !== "Skip to the content") fault("the first stop is not the way past the head");
  for (let n = 0; n < 20 && !(await page.locator("#q:focus").count()); n += 1) await page.keyboard.press("Tab");
  await page.keyboard.type("1795413634:cust_42");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/users/cust_42");
  if (!(await page.locator("main").textContent()).includes("by ends and by deltas alike")) fault("the bill is not explained");
  await page.goto(`${page_url}/deliveries?state=dead`);
  const reach = async (text, whole = false) => {
    for (let n = 0; n < 60; n += 1) {
      const focus = page.locator(":focus");
      // Where nothing has it, asking for its text would wait.
      const found = await focus.count() ? ((await focus.first().textContent()) ?? "").trim() : "";
      if (whole ? found === text : found.startsWith(text)) return true;
      await page.keyboard.press("Tab");
    }
    fault(`${text} cannot be reached by keyboard`);
    return false;
  };
  if (await reach("Replay all that match")) {
    await page.keyboard.press("Enter");
    await page.waitForURL("**/confirm/deliveries/replay**");
    if (await reach("Replay ")) {
      await page.keyboard.press("Enter");
      await page.waitForURL("**/deliveries?**done=**");
      if (!(await page.locator("main").textContent()).includes("deliveries, replay")) fault("nothing is said of what was done");
    }
  }
  // And block the user who is looked at.
  await page.goto(`${page_url}/users/cust_42`);
  if (await reach("Block this user")) {
    await page.keyboard.press("Enter");
    await page.waitForURL("**/confirm/block**");
    if (await reach("Block", true)) {
      await page.keyboard.press("Enter");
      await page.waitForURL("**/users/cust_42");
      if (!(await page.locator("main").textContent()).includes("Blocked in every realm until he is unblocked")) fault("nothing is said of the block");
    }
  }
  // And test the endpoint.
  await page.goto(`${page_url}/endpoints/billing`);
  if (await reach("Send a test", true)) {
    await page.keyboard.press("Enter");
    await page.waitForURL("**/endpoints/billing/test");
    if (!(await page.locator("main").textContent()).includes("billing is well")) fault("nothing is said of the test");
    await page.screenshot({ path: `${shots}/tested.png`, fullPage: true });
  }
  const tested = (await api("/audit")).items;
  if (tested[0]?.action !== "test" || tested[0]?.target !== "billing") fault("the test is not on record");
  const did = tested.slice(1);
  if (did[0]?.action !== "block" || did[0]?.target !== "cust_42") fault("the block is not on record");
  const record = did.slice(1);
  if (record[0]?.who !== "otto" || record[0]?.action !== "replay") fault("it is not on record");
  await page.context().close();
}
await browser.close();
socket.destroy();
console.log(faults.length ? `${faults.length} faults` : `no fault in ${small ? "some of " : ""}${views.length} views`);
process.exit(faults.length ? 1 : 0);
