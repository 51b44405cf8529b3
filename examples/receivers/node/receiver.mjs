#!/usr/bin/env node
// A receiver of turnhook's webhooks: verifies, counts every event once, adds up what to bill.
//
// Node (18 or later) is all it needs:
//
//     node receiver.mjs --listen 127.0.0.1:9000 --secret whsec_... --journal usage.jsonl
//     curl http://127.0.0.1:9000/usage
//
// Types of the webhooks are in webhooks.d.ts, for tsc and editors; nothing needs them to run.

/**
 * @typedef {import("./webhooks.js").Webhook} Webhook
 * @typedef {{ id: string, account?: object, sessions?: number, billable_bytes?: number, lower_bound_sessions?: number }} Entry
 */

import { createHmac, timingSafeEqual } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const TOLERANCE_SECONDS = 300;
const BODY_LIMIT = 4 * 1024 * 1024;

/** whsec_<base64> -> the key. */
function keyOf(secret) {
  if (!secret.startsWith("whsec_")) throw new Error("a secret starts with whsec_ (make one with `turnhook secret`)");
  return Buffer.from(secret.slice("whsec_".length), "base64");
}

/**
 * Checks the signature: HMAC-SHA256 over "{id}.{timestamp}.{body}", in base64, by any of the keys.
 * Returns why the request is refused, or undefined.
 */
export function refusal(keys, headers, body, now) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  if (!id || !/^\d+$/.test(timestamp ?? "")) return "webhook-id or webhook-timestamp is missing";
  // An old request, sent again by somebody who recorded it, is none of turnhook's: its retries have a new timestamp.
  if (Math.abs(now - Number(timestamp)) > TOLERANCE_SECONDS) return "the timestamp is too far from this clock";
  const wanted = keys.map((key) => createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest());
  for (const signature of (headers["webhook-signature"] ?? "").split(" ")) {
    if (!signature.startsWith("v1,")) continue;
    const given = Buffer.from(signature.slice(3), "base64");
    if (wanted.some((one) => one.length === given.length && timingSafeEqual(one, given))) return undefined;
  }
  return "no signature fits";
}

/**
 * What was received, in a journal with one line an event: written and synced before the request is answered,
 * and read again at the start. (A real one keeps its events in the database that it bills from.)
 */
export class Books {
  #seen = new Set();
  #usage = new Map();
  #journal;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();

  static async open(path) {
    const books = new Books();
    const text = await readFile(path, "utf8").catch((error) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
    // What stands behind the last line break was being written when the power went, and never answered.
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    for (const line of whole.split("\n").filter(Boolean)) books.#add(JSON.parse(line));
    books.#journal = await open(path, "a");
    await books.#journal.truncate(Buffer.byteLength(whole));
    return books;
  }

  /**
   * Enters an event. False if it was entered before: turnhook sends again what it saw no answer to.
   * @param {string} id
   * @param {Webhook} event
   */
  enter(id, event) {
    // One after the other, so that the same event coming twice at once is written once.
    const entered = this.#last.then(async () => {
      if (this.#seen.has(id)) return false;
      const entry = entryOf(id, event);
      await this.#journal.appendFile(`${JSON.stringify(entry)}\n`);
      await this.#journal.datasync();
      this.#add(entry);
      return true;
    });
    this.#last = entered.catch(() => {});
    return entered;
  }

  /** @param {Entry} entry */
  #add({ id, account, sessions, billable_bytes, lower_bound_sessions }) {
    this.#seen.add(id);
    if (account === undefined) return;
    const key = JSON.stringify(account);
    const sum = this.#usage.get(key) ?? { ...account, sessions: 0, billable_bytes: 0, lower_bound_sessions: 0 };
    sum.sessions += sessions;
    sum.billable_bytes += billable_bytes;
    sum.lower_bound_sessions += lower_bound_sessions;
    this.#usage.set(key, sum);
  }

  usage() {
    return [...this.#usage].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, sum]) => sum);
  }

  async close() {
    await this.#last;
    await this.#journal.close();
  }
}

class NotUnderstood extends Error {}

/**
 * @param {string} id
 * @param {Webhook} event
 * @returns {Entry}
 */
function entryOf(id, event) {
  // What `turnhook endpoints test` sends is billed to nobody.
  if (event?.type !== "session.end" || event.test || id.startsWith("evt_test_")) return { id };
  const { realm, realm_base64, user, user_base64, continues, accuracy, usage } = event.data ?? {};
  const billable_bytes = usage?.billable_bytes;
  if (user === undefined || realm === undefined || !Number.isSafeInteger(billable_bytes)) {
    throw new NotUnderstood("user, realm or billable_bytes");
  }
  return {
    id,
    // A user of a realm, since `alice` of two realms is two customers. Null where the username does not match turnhook's
    // user_pattern: no word that somebody could be called. Names that are not UTF-8 look alike as text.
    account: { realm, realm_base64: realm_base64 ?? null, user, user_base64: user_base64 ?? null },
    // A session that continues another one corrects it: its bytes count, it is not a session more.
    sessions: continues ? 0 : 1,
    billable_bytes,
    lower_bound_sessions: accuracy === "lower_bound" ? 1 : 0,
  };
}

async function read(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > BODY_LIMIT) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export function makeServer(secrets, books) {
  const keys = secrets.map(keyOf);
  const respond = async (request) => {
    if (request.method === "GET" && request.url === "/usage") return [200, books.usage()];
    if (request.method !== "POST") return [404, undefined];
    const body = await read(request);
    if (body === undefined) return [413, undefined];
    const refused = refusal(keys, request.headers, body, Date.now() / 1000);
    // 401 is tried again: right while a secret is being rotated, harmless for a stranger.
    if (refused) return [401, { error: refused }];
    try {
      return [200, { new: await books.enter(request.headers["webhook-id"], JSON.parse(body.toString())) }];
    } catch (error) {
      // 422 says "never": turnhook puts the event to the dead letters, for a person to look at.
      if (error instanceof NotUnderstood || error instanceof SyntaxError) return [422, { error: error.message }];
      // Anything else, a full disk say: turnhook comes again.
      return [500, { error: "not entered" }];
    }
  };
  return createServer((request, response) => {
    respond(request)
      .then(([status, body]) => {
        const text = body === undefined ? "" : `${JSON.stringify(body)}\n`;
        response.writeHead(status, { "content-type": "application/json" }).end(text);
      })
      .catch(() => response.destroy());
  });
}

async function main() {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", default: "127.0.0.1:9000" },
      secret: { type: "string", multiple: true },
      journal: { type: "string", default: "usage.jsonl" },
    },
  });
  const secrets = values.secret ?? process.env.TURNHOOK_SECRET?.split(/\s+/) ?? [];
  if (secrets.length === 0) throw new Error("--secret is needed");
  const server = makeServer(secrets, await Books.open(values.journal));
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(values.listen);
  server.listen(Number(port), host, () => {
    const address = /** @type {import("node:net").AddressInfo} */ (server.address());
    console.error(`listening on http://${host}:${address.port}/`);
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main();
