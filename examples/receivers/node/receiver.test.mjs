// node --test examples/receivers/node

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { appendFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";

import { Books, makeServer } from "./receiver.mjs";

const KEY = Buffer.from(Array.from({ length: 24 }, (_, i) => i));
const OLD_KEY = Buffer.from(Array.from({ length: 24 }, (_, i) => i + 24));
const SECRETS = [KEY, OLD_KEY].map((key) => `whsec_${key.toString("base64")}`);

let directory, journal, books, server, address;

async function start() {
  books = await Books.open(journal);
  server = makeServer(SECRETS, books);
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  address = `http://127.0.0.1:${server.address().port}`;
}

async function stop() {
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
  await books.close();
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "receiver-"));
  journal = join(directory, "usage.jsonl");
  await start();
});

afterEach(async () => {
  await stop();
  await rm(directory, { recursive: true });
});

function end({ user = "cust_42", realm = "example.org", billable = 540000, ...more } = {}) {
  const usage = { billable_bytes: billable };
  return JSON.stringify({ type: "session.end", data: { realm, user, continues: null, accuracy: "exact", usage, ...more } });
}

const seconds = () => Math.floor(Date.now() / 1000);

function headers(id, body, { key = KEY, timestamp = seconds(), before = "" } = {}) {
  const mac = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": String(timestamp), "webhook-signature": `${before}v1,${mac}` };
}

async function send(body, head) {
  const response = await fetch(`${address}/turn`, { method: "POST", body, headers: head });
  return [response.status, await response.json()];
}

const post = (id, body, how) => send(body, headers(id, body, how));
const accounts = async () => (await fetch(`${address}/usage`)).json();

/** The sums of one account. */
async function usage(user = "cust_42", realm = "example.org", user_base64 = null) {
  const all = await accounts();
  const found = all.filter((one) => one.user === user && one.realm === realm && one.user_base64 === user_base64);
  assert.equal(found.length, 1, JSON.stringify(all));
  const { sessions, billable_bytes, lower_bound_sessions } = found[0];
  return { sessions, billable_bytes, lower_bound_sessions };
}

test("usage adds up by user", async () => {
  assert.deepEqual(await post("evt_1", end()), [200, { new: true }]);
  assert.deepEqual(await post("evt_2", end({ billable: 1 })), [200, { new: true }]);
  await post("evt_3", end({ user: null, accuracy: "lower_bound" }));
  await post("evt_4", JSON.stringify({ type: "session.usage", data: {} }));
  assert.deepEqual(await usage(), { sessions: 2, billable_bytes: 540001, lower_bound_sessions: 0 });
  assert.equal((await usage(null)).lower_bound_sessions, 1);
});

test("who looks alike is not the same", async () => {
  const people = [
    { user: "alice" },
    { user: "alice", realm: "other.example" },
    { user: "alice", realm: null },
    { user: null },
    { user: "(unknown)" },
    { user: "null" },
    { user: "M\ufffdller", user_base64: "TfxsbGVy" },
    { user: "M\ufffdller", user_base64: "TfZsbGVy" },
    { user: "M\ufffdller" },
  ];
  for (const [billable, one] of people.entries()) {
    assert.equal((await post(`evt_${billable}`, end({ billable, ...one })))[0], 200);
  }
  const sums = (await accounts()).map((one) => one.billable_bytes).sort();
  assert.deepEqual(sums, [...people.keys()]);
  assert.equal((await usage("M\ufffdller", "example.org", "TfZsbGVy")).billable_bytes, 7);
});

test("an event counts once however often it comes", async () => {
  const answers = await Promise.all([1, 2, 3].map(() => post("evt_1", end())));
  assert.equal(answers.filter(([, { new: isNew }]) => isNew).length, 1);
  await stop();
  await appendFile(journal, '{"id":"evt_2","user":"cust_42","bil'); // the power went while this was written
  await start();
  assert.deepEqual(await post("evt_1", end()), [200, { new: false }]);
  assert.deepEqual(await post("evt_2", end()), [200, { new: true }]);
  assert.equal((await usage()).billable_bytes, 1080000);
});

test("a session that continues another is no session more", async () => {
  await post("evt_1", end());
  await post("evt_2", end({ billable: 400, continues: "ses_1" }));
  assert.deepEqual(await usage(), { sessions: 1, billable_bytes: 540400, lower_bound_sessions: 0 });
});

test("wrong requests are refused and count nothing", async () => {
  const body = end();
  const good = headers("evt_1", body);
  for (const head of [
    {},
    headers("evt_1", body, { key: Buffer.alloc(24) }),
    headers("evt_1", body, { timestamp: seconds() - 310 }),
    headers("evt_1", body, { timestamp: seconds() + 310 }),
    { ...good, "webhook-id": "evt_2" },
    { ...good, "webhook-timestamp": "soon" },
    { ...good, "webhook-signature": good["webhook-signature"].replace("v1,", "v2,") },
    { ...good, "webhook-signature": "v1,*** v1," },
  ]) {
    assert.equal((await send(body, head))[0], 401, JSON.stringify(head));
  }
  assert.equal((await send(end({ billable: 1 }), good))[0], 401, "another body");
  assert.deepEqual(await accounts(), []);
});

test("rotation: any secret and any signature will do", async () => {
  assert.equal((await post("evt_1", end(), { key: OLD_KEY }))[0], 200);
  assert.equal((await post("evt_2", end(), { before: "v1,AAAA " }))[0], 200);
});

test("what is signed but makes no sense is for a person", async () => {
  assert.equal((await post("evt_1", "not json"))[0], 422);
  assert.equal((await post("evt_2", '{"type":"session.end","data":{}}'))[0], 422);
  assert.equal((await post("evt_2", end()))[0], 200, "a refused event was not taken for seen");
});

test("trials are accepted and bill nobody", async () => {
  assert.equal((await post("evt_test_1", end()))[0], 200);
  assert.equal((await post("evt_1", JSON.stringify({ ...JSON.parse(end()), test: true })))[0], 200);
  assert.deepEqual(await accounts(), []);
});

test("unknown types are accepted", async () => {
  assert.equal((await post("evt_1", '{"type":"endpoint.ping","data":{}}'))[0], 200);
});
