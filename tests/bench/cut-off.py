#!/usr/bin/env python3
"""How long it takes from a block to its end: a hundred times on a real coturn, one block after the other.

Three figures for each round, by one clock: from billing's answer that blocks (`obey`), and from the return of
`turnhook block`, to the arrival of that user's session.end at billing; and how many of the ends were exact.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROUNDS = int(os.environ.get("ROUNDS", "100"))
TURNHOOK = os.environ["TURNHOOK"]
TURNSERVER = os.environ.get("TURNBIN", "turnserver")
COOKIE = 0x2112A442


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def exchange(sock, method, attributes, key=None):
    """One STUN request over TCP; the code of its answer, and its attributes."""
    body = b"".join(attribute(*a) for a in attributes)
    transaction = secrets.token_bytes(12)
    if key:
        head = struct.pack("!HHI", method, len(body) + 24, COOKIE) + transaction
        body += attribute(0x0008, hmac.new(key, head + body, hashlib.sha1).digest())
    sock.sendall(struct.pack("!HHI", method, len(body), COOKIE) + transaction + body)
    head = receive(sock, 20)
    rest = receive(sock, struct.unpack("!H", head[2:4])[0])
    found, code = {}, 0
    while rest:
        kind, length = struct.unpack("!HH", rest[:4])
        found[kind] = rest[4:4 + length]
        rest = rest[4 + length + (-length % 4):]
    if 0x0009 in found:
        code = found[0x0009][2] * 100 + found[0x0009][3]
    return code, found


def receive(sock, n):
    data = b""
    while len(data) < n:
        piece = sock.recv(n - len(data))
        if not piece:
            raise ConnectionError("coturn has closed")
        data += piece
    return data


def allocate(port, user):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = f"{int(time.time()) + 3600}:{user}".encode()
    password = base64.b64encode(hmac.new(b"north", name, hashlib.sha1).digest())
    wish = [(0x0019, b"\x11\0\0\0")]
    code, found = exchange(sock, 0x0003, wish)
    assert code == 401, code
    realm = found[0x0014]
    key = hashlib.md5(name + b":" + realm + b":" + password).digest()
    login = [(0x0006, name), (0x0014, realm), (0x0015, found[0x0015])]
    code, _ = exchange(sock, 0x0003, wish + login, key)
    assert code == 0, code
    return sock


class Billing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: the second would wait 40 ms for the first to be acknowledged, which is not turnhook's.
    disable_nagle_algorithm = True
    lock = threading.Condition()
    block, answered, started, ended, exact = set(), {}, set(), {}, 0

    def do_POST(self):
        now = time.perf_counter()
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        user, answer = event["data"]["user"], b"{}"
        with Billing.lock:
            if event["type"] == "session.start":
                Billing.started.add(user)
                if user in Billing.block:
                    answer = b'{"block": {"for": "1h", "reason": "bench"}}'
            elif event["type"] == "session.end":
                assert event["data"]["end_reason"] == "cancelled", event
                Billing.exact += event["data"]["accuracy"] == "exact"
                Billing.ended[user] = now
            Billing.lock.notify_all()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()
        if len(answer) > 2:
            with Billing.lock:
                Billing.answered[user] = time.perf_counter()
                Billing.lock.notify_all()

    def log_message(self, *_):
        pass


def wait(what):
    with Billing.lock:
        if not Billing.lock.wait_for(what, timeout=60):
            raise SystemExit("waited in vain")


def figures(name, lags):
    lags.sort()
    at = lambda share: lags[min(len(lags) - 1, int(share * len(lags)))] * 1000
    print(f"{name}_median_ms {at(0.5):.1f}\n{name}_p99_ms {at(0.99):.1f}\n{name}_longest_ms {lags[-1] * 1000:.1f}", flush=True)


def main():
    work = tempfile.TemporaryDirectory()
    direct, cli, turn = free_port(), free_port(), free_port()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Billing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = f"{work.name}/turnhook.toml"
    with open(config, "w") as file:
        file.write(
            f'[[source]]\nname = "eu-1"\ntype = "direct"\nlisten = "127.0.0.1:{direct}"\n'
            f'[session]\nlinger = "0s"\n[store]\npath = "{work.name}/turnhook.db"\n[http]\nlisten = "127.0.0.1:0"\n'
            f'[[endpoint]]\nname = "billing"\nurl = "http://127.0.0.1:{server.server_address[1]}/"\n'
            f'secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]\nrate_limit = "unlimited"\n'
            f'[[control]]\nsource = "eu-1"\naddress = "127.0.0.1:{cli}"\npassword = "bench-only"\n'
            f'[enforce]\nobey = ["billing"]\nmax_rate = "unlimited"\n'
        )
    log = open(f"{work.name}/log", "w+")
    processes = []
    try:
        processes.append(subprocess.Popen([TURNHOOK, "run", "--config", config], stderr=log))
        more = ["--cli"] if "TURNBIN" in os.environ else []
        processes.append(subprocess.Popen(
            [TURNSERVER, "-n", "--no-tls", "--no-dtls", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--realm=example.org",
             "--use-auth-secret", "--static-auth-secret=north", f"--listening-port={turn}", f"--pidfile={work.name}/pid",
             f"--userdb={work.name}/db", "--log-file=stdout", "--cli-ip=127.0.0.1", f"--cli-port={cli}", "--cli-password=bench-only",
             f"--redis-statsdb=ip=127.0.0.1 port={direct}", *more],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until = time.time() + 60
        while "allocations can be ended" not in open(log.name).read():
            assert time.time() < until, open(log.name).read()
            time.sleep(0.05)
        lags = []
        for n in range(ROUNDS):
            user = f"obeyed-{n}"
            Billing.block.add(user)
            client = allocate(turn, user)
            wait(lambda: user in Billing.ended and user in Billing.answered)
            lags.append(max(0.0, Billing.ended[user] - Billing.answered[user]))
            client.close()
        figures("answer_to_end", lags)
        lags = []
        for n in range(ROUNDS):
            user = f"told-{n}"
            client = allocate(turn, user)
            wait(lambda: user in Billing.started)
            subprocess.run([TURNHOOK, "block", user, "--config", config], check=True, stdout=subprocess.DEVNULL)
            returned = time.perf_counter()
            wait(lambda: user in Billing.ended)
            lags.append(max(0.0, Billing.ended[user] - returned))
            client.close()
        figures("command_to_end", lags)
        print(f"exact {Billing.exact} of {2 * ROUNDS}")
    finally:
        for process in processes:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
