"""Verifies webhooks, one JSON object a line, with the Python package `standardwebhooks`."""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

count = 0
for line in sys.stdin:
    one = json.loads(line)
    for secret in one["secrets"]:
        webhook = Webhook(secret)
        webhook.verify(one["body"], one["headers"])
        try:
            webhook.verify(one["body"] + " ", one["headers"])
        except WebhookVerificationError:
            pass
        else:
            sys.exit("python: a changed body was accepted")
        count += 1
if count < 9:
    sys.exit(f"python: only {count} signatures to verify")
print(f"python: {count} signatures verified")
