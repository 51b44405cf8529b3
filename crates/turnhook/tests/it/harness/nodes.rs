//! Nodes: turnhooks that share a PostgreSQL and listen to one Redis, each with a folder and ports of its own.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::{DEADLINE, coturn::Coturn, eventually, postgres::Postgres, program::Program, redis::Redis};

/// Sessions that end soon, so that a test does: everything else as in the defaults.
const QUICK: &str = "[session]\nlinger = \"300ms\"\ntotals_grace = \"4s\"\nreport_grace = \"8s\"\n\
expiry_grace = \"8s\"\nusage_interval = \"1s\"\n";

/// What the nodes have in common. To be started by the test's own thread, which PostgreSQL does not outlive.
pub(crate) struct Shared {
    pub(crate) postgres: Postgres,
    pub(crate) database: String,
    pub(crate) redis: Redis,
    pub(crate) directory: tempfile::TempDir,
    lease: &'static str,
    /// Those of the nodes that are made from now on.
    pub(crate) endpoints: String,
    grace: &'static str,
}

impl Shared {
    /// `lease` as in the configuration; `endpoints` are those of every node.
    #[track_caller]
    pub(crate) fn start(lease: &'static str, endpoints: String) -> Shared {
        let postgres = Postgres::start();
        let database = postgres.database();
        let directory = tempfile::tempdir().unwrap();
        let redis = Redis::start(directory.path(), &[]);
        Shared {
            postgres,
            database,
            redis,
            directory,
            lease,
            endpoints,
            grace: "5s",
        }
    }

    /// Nodes that have so long to stop.
    pub(crate) fn with_grace(self, grace: &'static str) -> Shared {
        Shared { grace, ..self }
    }

    /// Nodes that run, listen, and share all that there is to do.
    #[track_caller]
    pub(crate) fn nodes(&self, count: usize) -> Vec<Node> {
        let mut nodes: Vec<Node> = (1..=count).map(|n| self.node(&format!("node-{n}"))).collect();
        for node in &mut nodes {
            node.launch();
        }
        ready(&nodes);
        nodes
    }

    /// One that does not run yet.
    pub(crate) fn node(&self, name: &str) -> Node {
        let program = Program::new("");
        let text = format!(
            "shutdown_grace = \"{}\"\n\
             [store]\nurl = \"{}\"\nlease = \"{}\"\nnode = \"{name}\"\n\
             [[source]]\nname = \"eu-1\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n{QUICK}{}",
            self.grace,
            self.postgres.url(&self.database),
            self.lease,
            self.redis.port,
            program.http,
            self.endpoints,
        );
        fs::write(program.directory.path().join("turnhook.toml"), text).unwrap();
        Node {
            name: name.to_owned(),
            program,
            runs: false,
            earlier: Vec::new(),
        }
    }

    #[track_caller]
    pub(crate) fn coturn(&self) -> Coturn {
        Coturn::start(
            self.directory.path(),
            &self.redis.statsdb(),
            &["--max-allocate-lifetime=600"],
        )
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.postgres.sql(&self.database, sql)
    }

    /// How often the lead of the source was taken.
    pub(crate) fn epoch(&self) -> u64 {
        let epoch = self.sql("SELECT max(epoch) FROM lease WHERE name LIKE 'source/%'");
        epoch.parse().unwrap()
    }
}

/// A turnhook among others.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) program: Program,
    runs: bool,
    /// What it logged in its earlier lives.
    earlier: Vec<String>,
}

impl Node {
    /// Starts it, and does not wait for anything.
    pub(crate) fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same, with these variables in its environment.
    pub(crate) fn launch_with(&mut self, environment: &[(&str, &str)]) {
        self.program.launch_with(environment);
        self.runs = true;
    }

    #[track_caller]
    pub(crate) fn kill(&mut self) {
        let log = self.program.kill();
        self.ended(log);
    }

    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let log = self.program.stop();
        self.ended(log);
    }

    fn ended(&mut self, log: Vec<String>) {
        self.runs = false;
        self.earlier.extend(log);
        self.earlier.push("--- ended".to_owned());
    }

    /// SIGSTOP: it does nothing and answers nobody.
    pub(crate) fn pause(&mut self) {
        self.program.process().signal("STOP");
        self.runs = false;
    }

    pub(crate) fn resume(&mut self) {
        self.program.process().signal("CONT");
        self.runs = true;
    }

    /// Whether it says that it leads the source.
    pub(crate) fn leads(&self) -> bool {
        self.runs && self.says("/sources/eu-1/role") == "leader"
    }

    /// How many lanes it says that it delivers.
    pub(crate) fn lanes(&self) -> u64 {
        self.says("/node/lanes").as_u64().unwrap_or_default()
    }

    /// Something of its `/status`; null while there is no answer.
    pub(crate) fn says(&self, pointer: &str) -> serde_json::Value {
        let status = self.program.try_get("/status");
        let status: Option<serde_json::Value> = status.and_then(|(_, body)| serde_json::from_str(&body).ok());
        status
            .and_then(|status| status.pointer(pointer).cloned())
            .unwrap_or_default()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.program
            .try_get("/readyz")
            .is_some_and(|(code, _)| code == 200)
    }

    /// How many deliveries it has made in this life.
    #[track_caller]
    pub(crate) fn delivered(&self) -> u64 {
        super::billing::counted(
            &self.program,
            &["turnhook_deliveries_total", "outcome=\"delivered\""],
        )
    }

    /// And how many whose product looks at them later.
    #[track_caller]
    pub(crate) fn accepted(&self) -> u64 {
        super::billing::counted(
            &self.program,
            &["turnhook_deliveries_total", "outcome=\"accepted\""],
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.earlier.is_empty() {
            eprintln!("=== {}, earlier\n{}", self.name, self.earlier.join("\n"));
        }
    }
}

/// Waits until all that run are ready, one of them leads, and all lanes are theirs.
#[track_caller]
pub(crate) fn ready(nodes: &[Node]) -> usize {
    let running: Vec<&Node> = nodes.iter().filter(|node| node.runs).collect();
    let share = 64 / running.len() as u64;
    let until = Instant::now() + DEADLINE;
    loop {
        let all = running.iter().all(|node| node.is_ready());
        let shared = running
            .iter()
            .all(|node| (share..=share + 1).contains(&node.lanes()));
        if all && shared {
            break;
        }
        let said = || {
            running
                .iter()
                .map(|node| (node.lanes(), node.program.try_get("/readyz")))
        };
        assert!(
            Instant::now() < until,
            "waited in vain for all nodes to be ready, with a share each: {:#?}",
            said().collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    leader(nodes)
}

/// Waits until one of those that run leads; which.
#[track_caller]
pub(crate) fn leader(nodes: &[Node]) -> usize {
    eventually("one leader", || {
        let mut leaders = nodes.iter().enumerate().filter(|(_, node)| node.leads());
        let one = leaders.next()?.0;
        leaders.next().is_none().then_some(one)
    })
}
