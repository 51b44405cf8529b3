// Verifies webhooks, one JSON object a line, with the npm package `standardwebhooks`.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

let count = 0;
for (const line of readFileSync(0, "utf8").trim().split("\n")) {
  const one = JSON.parse(line);
  for (const secret of one.secrets) {
    const webhook = new Webhook(secret);
    webhook.verify(one.body, one.headers);
    let refused = false;
    try {
      webhook.verify(one.body + " ", one.headers);
    } catch {
      refused = true;
    }
    if (!refused) throw new Error("node: a changed body was accepted");
    count += 1;
  }
}
if (count < 9) throw new Error(`node: only ${count} signatures to verify`);
console.log(`node: ${count} signatures verified`);
