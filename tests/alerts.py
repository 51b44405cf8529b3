#!/usr/bin/env python3
"""Makes alerts of deploy/prometheus fire, each by the real thing that it warns of, and clear: a real Prometheus that scrapes
a real turnhook.

    ./tests/long.sh alerts                              # all of them
    ./tests/alerts.py TurnhookCommitSlow TurnhookGap    # only these, of those that have a turnhook of their own

Takes the turnhook that TURNHOOK names, else target/debug/turnhook. One alert is of faults of our own, and a build for
development stops at such a fault: tests/long.sh makes one that goes on, as a release does.

Time runs faster: in the rules a minute is a second, an hour ten, and the ages that some of them wait for are seconds. The
expressions are otherwise as they are shipped. Needs Debian's prometheus (unpacked by tests/run.sh, or on the PATH), its
coturn, redis-server and faketime. Fails where an alert did not fire, or was left out. (turnhook.rules.test.yaml holds the same
expressions to synthetic series.)
"""

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
TURNHOOK = os.environ.get("TURNHOOK", os.path.join(TARGET, "debug/turnhook"))
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# How long any of it may take.
PATIENCE = 120


def faster(rules):
    """A minute is a second, an hour ten."""
    rules = re.sub(r"\b(\d+)m\b", r"\1s", rules)
    rules = re.sub(r"\b(\d+)h\b", lambda hours: f"{10 * int(hours[1])}s", rules)
    for age, seconds in (("time() - 2700", "time() - 8"), ("> 900", "> 4"), ("> 21600", "> 8"), ("< 900", "< 15"), ("< 300", "< 5")):
        assert age in rules, age
        rules = rules.replace(age, seconds)
    return rules


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, holds):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if found := holds():
                return found
        time.sleep(0.2)
    raise SystemExit(f"FAILED: waited in vain for {what}")


class Receiver:
    """Answers as it is told; or is not there."""

    def __init__(self):
        self.port, self.answer, self.server = free_port(), 204, None
        self.start()

    def start(self):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver.answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Coturn:
    """What a relay thread of coturn says to a `direct` source."""

    def __init__(self, port, password="pw"):
        self.stream = socket.create_connection(("127.0.0.1", port))
        self.command("AUTH", password)

    def command(self, *words):
        words = [word.encode() for word in words]
        self.stream.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))

    def publish(self, user, number, kind, payload):
        self.command("PUBLISH", f"turn/realm/example.org/user/{user}/allocation/{number:018}/{kind}", payload)

    def open(self, user, number):
        self.publish(user, number, "status", "new lifetime=600")

    def call(self, user, number):
        self.open(user, number)
        counters = "rcvp=50, rcvb=5000, sentp=50, sentb=5000"
        for kind in ("traffic", "traffic/peer"):
            self.publish(user, number, kind, counters)
        self.publish(user, number, "status", "deleted")
        for kind in ("total_traffic", "total_traffic/peer"):
            self.publish(user, number, kind, counters)


def publish(world, number, kind, payload):
    """What coturn says to a `redis` source."""
    channel = f"turn/realm/example.org/user/user-{number // 10**15}/allocation/{number:018}/{kind}"
    command = ("redis-cli", "-p", str(world.redis), "PUBLISH", channel, payload)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class World:
    def __init__(self, directory, session="", endpoint=""):
        self.directory, self.processes = directory, {}
        self.seen, self.ended = [], threading.Event()
        self.direct, self.redis, self.http, self.prometheus = (free_port() for _ in range(4))
        self.other_direct, self.other_http, self.cli = free_port(), free_port(), free_port()
        self.receiver = Receiver()
        self.calls = 0
        path = os.path.join(directory, "turnhook.toml")
        with open(path, "w") as file:
            file.write(
                f"""
[[source]]
name = "eu-1"
type = "direct"
listen = "127.0.0.1:{self.direct}"
password = "pw"
[[source]]
name = "us-1"
type = "redis"
url = "redis://127.0.0.1:{self.redis}"
[http]
listen = "127.0.0.1:{self.http}"
[session]
group_by = "allocation"
linger = "0s"
{session}
[[control]]
source = "eu-1"
address = "127.0.0.1:{self.cli}"
password = "pw"
[[endpoint]]
name = "billing"
url = "http://127.0.0.1:{self.receiver.port}/"
secrets = ["{SECRET}"]
retry = {{ initial = "100ms", max = "500ms" }}
{endpoint}
"""
            )
        rules = open(os.path.join(ROOT, "deploy/prometheus/turnhook.rules.yaml")).read()
        self.alerts = re.findall(r"^ *- alert: (\w+)", rules, re.M)
        with open(os.path.join(directory, "rules.yaml"), "w") as file:
            file.write(faster(rules))
        with open(os.path.join(directory, "prometheus.yml"), "w") as file:
            file.write(
                f"""
global: {{scrape_interval: 250ms, evaluation_interval: 500ms}}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: turnhook
    file_sd_configs: [{{files: [targets.json], refresh_interval: 1s}}]
"""
            )
        self.scrape(self.http)
        places = os.environ["PATH"] + ":" + os.path.join(TARGET, "prometheus/usr/bin")
        program = shutil.which("prometheus", path=places)
        if not program:
            raise SystemExit("prometheus is needed: Debian's package, or ./tests/run.sh, which unpacks it")
        self.program = program
        self.scraper()

    def scraper(self):
        directory = self.directory
        self.start(
            "prometheus",
            self.program,
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
        )

    def scrape(self, *ports):
        """These turnhooks are scraped, and no other."""
        path = os.path.join(self.directory, "targets.json")
        with open(path + ".new", "w") as file:
            json.dump([{"targets": [f"127.0.0.1:{port}" for port in ports]}] if ports else [], file)
        os.replace(path + ".new", path)

    def start(self, name, *command, directory=None, variables=None):
        log = open(os.path.join(self.directory, f"{name}.log"), "ab")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TURNHOOK_")} | (variables or {})
        self.processes[name] = subprocess.Popen(
            command, cwd=directory or self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )

    def stop(self, name, how=signal.SIGTERM):
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(PATIENCE)

    def turnhook(self, variables=None):
        self.start("turnhook", TURNHOOK, "run", variables=variables)
        until("turnhook", lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.http}/livez"))

    def other(self, program=TURNHOOK):
        """A second turnhook with a store of its own, as somebody starts one by mistake: for a source of the same name."""
        directory = os.path.join(self.directory, "other")
        os.mkdir(directory)
        with open(os.path.join(directory, "turnhook.toml"), "w") as file:
            file.write(
                f"""
[[source]]
name = "eu-1"
type = "direct"
listen = "127.0.0.1:{self.other_direct}"
password = "pw"
[http]
listen = "127.0.0.1:{self.other_http}"
[session]
group_by = "allocation"
linger = "0s"
"""
            )
        self.start("other", program, "run", directory=directory)
        until("the second turnhook", lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.other_http}/livez"))
        self.scrape(self.http, self.other_http)

    def status(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/status") as answer:
            return json.load(answer)

    def redis_server(self):
        self.start("redis", "redis-server", "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "")

    def command(self, *words):
        subprocess.run([TURNHOOK, *words], cwd=self.directory, check=True, stdout=subprocess.DEVNULL)

    def coturn(self):
        return until("the listener", lambda: Coturn(self.direct))

    def call(self, coturn):
        self.calls += 1
        coturn.call(f"user-{self.calls}", self.calls)

    def value(self, query):
        """What Prometheus knows of it, or nothing."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.prometheus}/api/v1/query?query={query}") as answer:
            return json.load(answer)["data"]["result"]

    def firing(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.prometheus}/api/v1/alerts") as answer:
            alerts = json.load(answer)["data"]["alerts"]
        return any(a["labels"]["alertname"] == name and a["state"] == "firing" for a in alerts)

    def fires(self, name):
        until(f"{name} to fire", lambda: self.firing(name))
        print(f"{name} fires", flush=True)

    def clears(self, name):
        until(f"{name} to clear", lambda: not self.firing(name))
        print(f"{name} clears", flush=True)

    @contextlib.contextmanager
    def warns(self, *names):
        """Within: what it warns of holds. After: it does not, once the block's end has been reached."""
        for name in names:
            self.fires(name)
        yield self.ended.set
        for name in names:
            self.clears(name)
        self.seen.extend(names)

    @contextlib.contextmanager
    def meanwhile(self, does):
        """Does it ten times a second, until it is over."""
        self.ended.clear()

        def go_on():
            number = 10_000
            while not self.ended.wait(0.1):
                number += 1
                does(number)

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            thread.join()

    def end(self):
        for name in list(self.processes):
            with contextlib.suppress(Exception):
                self.stop(name, signal.SIGKILL)


def run(world):
    warns, meanwhile = world.warns, world.meanwhile

    with warns("TurnhookDown"):
        world.redis_server()
        world.turnhook()
    with warns("TurnhookNoServer"):
        coturn = world.coturn()
        world.call(coturn)

    # Nobody has said anything to its Redis so far.
    with warns("TurnhookSourceNeverHeard"):
        publish(world, 1, "status", "refreshed lifetime=0")
        publish(world, 1, "status", "deleted")

    world.stop("redis", signal.SIGKILL)
    with warns("TurnhookSourceDeaf"):
        world.redis_server()
    # It was cut off, and is back: what was said meanwhile is missed.
    with warns("TurnhookGap"):
        pass

    wrong = threading.Event()

    def guess():
        while not wrong.wait(0.5):
            with contextlib.suppress(OSError):
                Coturn(world.direct, "wrong").stream.recv(100)

    threading.Thread(target=guess, daemon=True).start()
    with warns("TurnhookLoginsRefused"):
        wrong.set()

    coturn.open("silent", 900)
    with warns("TurnhookSourceSilent"):
        coturn.publish("silent", 900, "status", "deleted")

    world.receiver.answer = 422
    world.call(coturn)
    with warns("TurnhookDeadLetters"):
        world.receiver.answer = 204
        world.command("replay", "--endpoint", "billing", "--wait")

    world.receiver.stop()
    began = time.monotonic()
    for _ in range(30):
        world.call(coturn)
    with warns("TurnhookBreakerOpen", "TurnhookDeliveryLate", "TurnhookDeliveryVeryLate"):
        # Later than a minute, which is one here as well.
        until("a minute to pass", lambda: time.monotonic() - began > 62)
        world.receiver.start()
        with warns("TurnhookDeliveryBudgetBurn", "TurnhookDeliveryBudgetSlowBurn"):
            pass

    world.command("endpoints", "pause", "billing")
    with warns("TurnhookEndpointStandsStill"):
        world.command("endpoints", "resume", "billing")

    def lose_totals(number):
        coturn.open(f"lost-{number}", number)
        coturn.publish(f"lost-{number}", number, "traffic", "rcvp=50, rcvb=5000, sentp=50, sentb=5000")
        coturn.publish(f"lost-{number}", number, "status", "deleted")

    with meanwhile(lose_totals), warns("TurnhookLowerBounds") as over:
        over()

    # Another one for the same source, which knows nothing of the first.
    world.other()
    with warns("TurnhookSourceWithoutLeader"):
        world.scrape(world.http)
        world.stop("other")

    database = os.path.join(world.directory, "turnhook.db")

    # A constraint that the database did not have.
    holder = sqlite3.connect(database, isolation_level=None, timeout=PATIENCE)
    holder.execute("CREATE TRIGGER full BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'the table is full'); END")
    world.call(coturn)
    with warns("TurnhookStoreRefused"):
        holder.execute("DROP TRIGGER full")

    holder.close()

    # Somebody else holds the database, and gives nobody else a turn.
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    world.call(coturn)
    with warns("TurnhookStoreDown", "TurnhookCommitErrors"):
        holder.execute("ROLLBACK")
        holder.close()

    for _ in range(5):
        world.stop("turnhook", signal.SIGKILL)
        world.turnhook()
        time.sleep(0.6)  # Prometheus has to see each of them
    with warns("TurnhookRestarts"):
        pass


# What follows has a turnhook of its own.


def wedged(world):
    """A relay thread of coturn publishes nothing any more, while another one does."""
    world.redis_server()
    world.turnhook()
    until("the subscription", lambda: world.status()["sources"]["us-1"]["state"] == "connected")

    def say(thread, number, kind, payload):
        publish(world, thread * 10**15 + number, kind, payload)

    for thread in (0, 1):
        for number in (1, 2, 3):
            say(thread, number, "status", "new lifetime=600, type=UDP, local=127.0.0.1:3478, remote=192.0.2.7:4000, ssl=NONE, cipher=NONE")
    # They should have been refreshed, or have ended, within a second.
    say(1, 1, "status", "refreshed lifetime=1")
    say(1, 2, "status", "refreshed lifetime=1")
    say(1, 3, "status", "refreshed lifetime=1")
    with world.meanwhile(lambda _: say(0, 1, "status", "refreshed lifetime=600")), world.warns("TurnhookWedgedThread") as over:
        over()


def damaged(world):
    """A payload in the store is no JSON any more, and has to be read again for an endpoint that is not sent all of it."""
    world.receiver.stop()
    world.turnhook()
    coturn = world.coturn()
    world.call(coturn)
    until("its deliveries", lambda: world.status()["endpoints"]["billing"]["pending"] == 2)
    world.stop("turnhook")
    with contextlib.closing(sqlite3.connect(os.path.join(world.directory, "turnhook.db"))) as store, store:
        store.execute("UPDATE event SET data = CAST(substr(data, 1, length(data) - 1) || x'5d' AS BLOB)")
    world.turnhook()

    def came_to():
        if world.processes["turnhook"].poll() is not None:
            return "stopped"
        return world.firing("TurnhookInternalErrors")

    if until("the fault to be found", came_to) == "stopped":
        raise SystemExit("FAILED: a build for development stops at a fault of our own: let TURNHOOK name one for use")
    with world.warns("TurnhookInternalErrors"):
        world.command("deliveries", "discard", "--state", "pending", "--all")


def two_versions(world):
    """Another version, as it is for an hour of an upgrade that was forgotten: the same program, by another number."""
    world.turnhook()
    with open(TURNHOOK, "rb") as file:
        program = file.read()
    version = world.status()["version"].encode()
    other = bytes((version[0] + 1,)) + version[1:]
    older = os.path.join(world.directory, "turnhook-of-another-version")
    with open(older, "wb") as file:
        file.write(program.replace(version, other))
    os.chmod(older, 0o755)
    world.other(older)
    with world.warns("TurnhookVersionSkew"):
        world.scrape(world.http)
        world.stop("other")


def never_relayed(world):
    """Clients send to coturn what it relays to nobody; what a client sends is what is billed here."""
    world.turnhook()
    coturn = world.coturn()

    def waste(number):
        coturn.open(f"waste-{number}", number)
        counters = "rcvp=2000, rcvb=2400000, sentp=0, sentb=0"
        coturn.publish(f"waste-{number}", number, "traffic", counters)
        coturn.publish(f"waste-{number}", number, "status", "deleted")
        coturn.publish(f"waste-{number}", number, "total_traffic", counters)
        coturn.publish(f"waste-{number}", number, "total_traffic/peer", "rcvp=0, rcvb=0, sentp=0, sentb=0")

    with world.meanwhile(waste), world.warns("TurnhookUnattributed") as over:
        over()


def clock_is_set(world):
    """The wall clock was ahead, and has been put back."""
    clock = os.path.join(world.directory, "clock")

    def put(off):
        with open(clock, "w") as file:
            file.write(off)

    library = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1"
    faked = {
        "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    put("+0")
    world.turnhook(faked)
    coturn = world.coturn()
    world.call(coturn)
    put("+10s")
    world.call(coturn)
    until("the clock to be noticed", lambda: any(gap["reason"] == "clock_step" for gap in world.status()["sources"]["eu-1"]["recent_gaps"]))
    put("+0")
    with world.warns("TurnhookWallClockAhead"):
        # Once the last time in an event has come, a start knows no other.
        world.stop("turnhook")
        stopped = time.monotonic()
        until("the last time in an event", lambda: time.monotonic() - stopped > 12)
        world.turnhook(faked)


def slow_commits(world):
    """Somebody else holds the database again and again."""
    world.turnhook()
    coturn = world.coturn()
    holder = sqlite3.connect(
        os.path.join(world.directory, "turnhook.db"), isolation_level=None, timeout=PATIENCE, check_same_thread=False
    )

    def hold(_):
        holder.execute("BEGIN IMMEDIATE")
        world.call(coturn)
        time.sleep(1.6)
        holder.execute("ROLLBACK")

    with world.meanwhile(hold), world.warns("TurnhookCommitSlow") as over:
        over()
    holder.close()


def nothing_scraped(world):
    """turnhook runs, and Prometheus was told to look elsewhere."""
    world.turnhook()
    until("the first look", lambda: world.value("up"))
    world.scrape()
    with world.warns("TurnhookNotScraped"):
        world.scrape(world.http)


def no_cli(world):
    """coturn's CLI is not there, until a real coturn has one."""
    world.turnhook()
    with world.warns("TurnhookControlDown"):
        world.start(
            "coturn", "turnserver", "-n", "--no-tls", "--no-dtls", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
            f"--listening-port={free_port()}", "--lt-cred-mech", "--user=a:b", "--realm=example.org", "--simple-log",
            "--log-file=stdout", "--cli-ip=127.0.0.1", f"--cli-port={world.cli}", "--cli-password=pw",
            f"--userdb={world.directory}/turndb", f"--pidfile={world.directory}/turnserver.pid",
        )


def gap_before_the_first_look(world):
    """coturn said something while nobody listened, and the counter was never seen at 0."""
    world.turnhook()
    coturn = world.coturn()
    coturn.open("user", 1)
    until("the allocation", lambda: world.status()["sources"]["eu-1"]["open_allocations"])
    world.stop("prometheus")
    world.stop("turnhook", signal.SIGKILL)
    world.turnhook()
    until("the gap of the restart", lambda: world.status()["sources"]["eu-1"]["gaps_24h"])
    world.scraper()
    with world.warns("TurnhookGap"):
        pass


ALONE = {
    "TurnhookWedgedThread": (wedged,),
    "TurnhookInternalErrors": (damaged, "", "include = { addresses = false }"),
    "TurnhookVersionSkew": (two_versions,),
    "TurnhookUnattributed": (never_relayed, 'start_on = "relay"\nbillable = "client"'),
    "TurnhookWallClockAhead": (clock_is_set,),
    "TurnhookCommitSlow": (slow_commits,),
    "TurnhookNotScraped": (nothing_scraped,),
    "TurnhookControlDown": (no_cli,),
    "TurnhookGap": (gap_before_the_first_look,),
}


def within(does, *more):
    """The alerts that it made fire, and all that there are."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory, *more)
        try:
            until("Prometheus", lambda: world.firing("none") or True)
            does(world)
        except BaseException:
            for name in ("turnhook", "prometheus"):
                with contextlib.suppress(OSError):
                    log = open(os.path.join(directory, f"{name}.log"), errors="replace").readlines()
                    sys.stderr.write(f"--- {name}\n" + "".join(log[-15:]))
            raise
        finally:
            world.end()
        return world.seen, world.alerts


def main(names):
    unknown = [name for name in names if name not in ALONE]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: not among those that can be had alone: {', '.join(ALONE)}")
    seen, alerts = ([], []) if names else within(run)
    for name, (does, *more) in ALONE.items():
        if not names or name in names:
            seen += within(does, *more)[0]
    left = [name for name in alerts if name not in seen]
    if left:
        raise SystemExit(f"FAILED: left out: {', '.join(left)}")
    print(f"\n{len(set(seen))} alerts fired and cleared.")


if __name__ == "__main__":
    main(sys.argv[1:])
