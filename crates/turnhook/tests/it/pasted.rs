//! Every command of README and of the chapters, as it stands there: those in blocks are run on a turnhook that has calls,
//! those within a sentence are held to the program's own commands and flags.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    billing::Billing,
    eventually,
    feeder::{Allocation, Feeder},
    postgres::Postgres,
    process::Process,
    program::Program,
    turnhook::{self, stderr, stdout},
};
use crate::reconcile::healing;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// README and the chapters: each with its name.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut files = vec![root().join("README.md")];
    let mut folders = vec![root().join("deploy"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    files
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The commands of a page's blocks: each line of one that is for a shell; in others, what stands behind a prompt.
fn commands(page: &str) -> Vec<String> {
    let (mut found, mut block) = (Vec::new(), None);
    for line in page.lines().map(str::trim) {
        if let Some(language) = line.strip_prefix("```") {
            block = block.is_none().then_some(language);
            continue;
        }
        match block {
            Some("sh" | "bash" | "shell") if !line.is_empty() => found.push(line.to_owned()),
            Some(_) => found.extend(line.strip_prefix("$ ").map(str::to_owned)),
            None => {}
        }
    }
    found
}

/// What becomes of a command.
enum How {
    /// It runs to its end, with status 0.
    Runs,
    /// It goes on until it is interrupted, and shows this once there is a call.
    Follows(&'static str),
    /// It renames the source of a turnhook that is stopped.
    Renames,
    /// It finds that what coturn's log has was told.
    Reconciles,
    /// It runs on a PostgreSQL, beside a turnhook that does.
    OnPostgres,
    /// It moves the store of a turnhook that is stopped into a PostgreSQL.
    Moves,
    /// It is not run here, because of this.
    NotHere(&'static str),
}

/// All but those that simply run, by how they begin.
const OTHERS: &[(&str, How)] = &[
    ("./examples/quickstart.sh", How::NotHere("tests/run.sh runs it")),
    ("./tests/run.sh", How::NotHere("it is what runs this")),
    ("turnhook status --watch", How::Follows("eu-1")),
    ("turnhook sessions tail", How::Follows("cust_42")),
    ("turnhook record", How::Follows("recording")),
    ("turnhook sources rename eu-1 eu-west", How::Renames),
    ("turnhook reconcile", How::Reconciles),
    ("turnhook nodes list", How::OnPostgres),
    ("turnhook store copy", How::Moves),
    (
        "journalctl",
        How::NotHere("it needs systemd's journal, with a service: tests/packages.sh has one"),
    ),
];

/// Where the commands run.
struct World {
    program: Program,
    feeder: Feeder,
    next: u64,
    /// An event, for `evt_…`.
    event: String,
}

impl World {
    fn start(billing: &Billing) -> World {
        let mut program = Program::new(&billing.endpoint());
        program.start();
        let mut feeder = Feeder::connect(program.source);
        feeder.call("1795413634:cust_42", 1);
        billing.ended("cust_42", 1);
        // One goes on.
        feeder
            .open(&Allocation::new("1795413634:cust_43", 2), 600)
            .unwrap();
        billing.started("cust_43");
        // What one relayed stands in coturn's log, too, and in those that were rotated stands nothing more.
        let mut ann = Allocation::new("1795413634:ann", 3);
        feeder.open(&ann, 600).unwrap();
        feeder.relay(&mut ann, 1000, 1000).unwrap();
        feeder.close(&ann).unwrap();
        let ann = healing::in_the_ledger(&program, "ann");
        let here = program.directory.path();
        let log = healing::log(&ann, here, "ann", 3, 1);
        fs::rename(log, here.join("turnserver.log")).unwrap();
        fs::write(here.join("turnserver.log.1"), "").unwrap();
        fs::write(here.join("turnserver.log.2"), "").unwrap();
        crate::reconcile::packed(&here.join("turnserver.log.1"), &here.join("turnserver.log.1.gz"));
        let event = eventually("a delivery", || {
            let delivered = program.deliveries("delivered");
            Some(delivered.first()?["webhook_id"].as_str()?.to_owned())
        });
        World {
            program,
            feeder,
            next: 100,
            event,
        }
    }

    /// The line, in a shell. What is elsewhere for an operator is here.
    fn shell(&self, line: &str) -> Command {
        self.shell_of(&self.program, line)
    }

    /// The same, where another turnhook is configured.
    fn shell_of(&self, configured: &Program, line: &str) -> Command {
        let here = self.program.directory.path().display();
        let line = line
            .replace(
                "/etc/turnhook/",
                &format!("{}/", configured.directory.path().display()),
            )
            .replace("/var/lib/turnhook/", &format!("{here}/"))
            .replace("/var/log/", &format!("{here}/"))
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", self.program.http))
            .replace("evt_…", &self.event);
        let program = Path::new(env!("CARGO_BIN_EXE_turnhook"));
        let path = std::env::var("PATH").unwrap();
        let clean = turnhook::command(configured.directory.path());
        let mut shell = Command::new("sh");
        shell.current_dir(configured.directory.path());
        for (name, _) in clean.get_envs() {
            shell.env_remove(name);
        }
        // What is asked for is a password.
        shell.args([
            "-c",
            &format!("echo 'six words that nobody would guess' | {{ {line}\n}}"),
        ]);
        shell.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
        shell
    }

    fn run(&self, line: &str) -> String {
        done(line, &mut self.shell(line))
    }

    /// What coturn's log has is what was told. It is of today: of other days there is nothing.
    fn reconciles(&self, line: &str) {
        let said = self.run(line);
        assert!(
            said.contains("1 equal") || line.contains("--from") && said.contains("\"summary\""),
            "{line}\n{said}"
        );
    }

    fn follow(&mut self, line: &str, shows: &str) {
        // Without a shell around it: a signal is for the program.
        let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().collect();
        let (program, arguments) = words.split_first().unwrap();
        assert_eq!(*program, "turnhook", "{line}");
        let mut process = Process::start(turnhook::command(self.program.directory.path()).args(arguments));
        eventually(line, || {
            self.next += 1;
            self.feeder.call("1795413634:cust_42", self.next);
            let (out, err) = (process.stdout(), process.stderr());
            out.iter().chain(&err).any(|l| l.contains(shows)).then_some(())
        });
        process.signal("INT");
        let status = process.wait();
        assert!(status.success(), "{line}: {status}");
    }

    /// A node of a PostgreSQL, without anything to tell.
    fn on_postgres(&self, server: &Postgres, line: &str) {
        let mut node = node(server);
        node.start();
        eventually("a node that leads", || {
            let said = done(line, &mut self.shell_of(&node, line));
            (said.contains("live") && said.contains("eu-1")).then_some(())
        });
        node.stop();
    }

    /// Into a PostgreSQL, and after all back to the file, as SEVERAL-MACHINES.md says.
    fn moves(&mut self, server: &Postgres, line: &str) {
        self.program.stop();
        let said = done(line, &mut self.shell_of(&node(server), line));
        assert!(said.contains("sessions"), "{line}\n{said}");
        let marker = self.program.directory.path().join("turnhook.db.copied");
        fs::remove_file(marker).unwrap();
        self.program.start();
        self.feeder = Feeder::connect(self.program.source);
    }

    /// The source has another name in the configuration, and the store learns it; then the first one again.
    fn rename(&mut self, line: &str) {
        self.program.stop();
        let file = self.program.directory.path().join("turnhook.toml");
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, before.replace("\"eu-1\"", "\"eu-west\"")).unwrap();
        self.run(line);
        fs::write(&file, before).unwrap();
        self.run("turnhook sources rename eu-west eu-1");
        self.program.start();
        self.feeder = Feeder::connect(self.program.source);
    }
}

/// A turnhook with a database of its own, not yet running.
fn node(server: &Postgres) -> Program {
    let url = server.url(&server.database());
    Program::new(&format!("[store]\nurl = \"{url}\"\n"))
}

/// Runs it to its end: what it printed.
#[track_caller]
fn done(line: &str, command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{line}\n{}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output).to_owned()
}

#[test]
fn commands_in_blocks_run_as_they_stand() {
    let (billing, server) = (Billing::start(), Postgres::start());
    let mut world = World::start(&billing);
    let (mut ran, mut others) = (0, vec![0; OTHERS.len()]);
    for (page, text) in pages() {
        for line in commands(&text) {
            println!("{page}: {line}");
            let other = OTHERS.iter().position(|(begins, _)| line.starts_with(begins));
            match other.map_or(&How::Runs, |place| &OTHERS[place].1) {
                How::Runs => drop(world.run(&line)),
                How::Reconciles => world.reconciles(&line),
                How::OnPostgres => world.on_postgres(&server, &line),
                How::Moves => world.moves(&server, &line),
                How::Follows(shows) => world.follow(&line, shows),
                How::Renames => world.rename(&line),
                How::NotHere(_) => {}
            }
            ran += 1;
            if let Some(place) = other {
                others[place] += 1;
            }
        }
    }
    assert!(ran > 25, "only {ran} commands were found");
    for ((begins, how), count) in OTHERS.iter().zip(others) {
        let why = if let How::NotHere(why) = how { why } else { "" };
        assert!(count > 0, "no page has `{begins}` any more ({why})");
    }
}

/// The words of a command before its first placeholder, but for the flags that wait for one.
fn known_words(command: &str) -> Vec<&str> {
    let is_placeholder = |word: &&str| {
        word.contains(['[', '<', '…', '|']) || word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    let end = words.iter().position(is_placeholder).unwrap_or(words.len());
    let waits = end < words.len() && end > 0 && words[end - 1].starts_with("--");
    words[..end - usize::from(waits)].to_vec()
}

#[test]
fn commands_in_sentences_are_the_programs_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = std::collections::BTreeMap::new();
    for (page, text) in pages() {
        for command in text.split('`').skip(1).step_by(2) {
            if !command.starts_with("turnhook ") || command.contains('\n') {
                continue;
            }
            let words = known_words(command);
            let help = seen.entry(words.join(" ")).or_insert_with(|| {
                let asked = [&words[..], &["--help"]].concat();
                let output = turnhook::run(directory.path(), &asked);
                assert!(
                    output.status.success(),
                    "{page}: `{command}`: {}",
                    stderr(&output)
                );
                stdout(&output).to_owned()
            });
            // Those behind a placeholder, too.
            for flag in command
                .split([' ', '[', ']', '|', '='])
                .filter(|word| word.starts_with("--"))
            {
                let is_it = |word: &str| word.trim_end_matches([',', '.', ']']) == flag;
                assert!(
                    help.split_whitespace().any(is_it),
                    "{page}: `{command}` has {flag}\n{help}"
                );
            }
        }
    }
    assert!(seen.len() > 15, "{:?}", seen.keys());
    assert_eq!(
        turnhook::run(directory.path(), &["sessions", "lst", "--help"])
            .status
            .code(),
        Some(2),
        "a wrong one would be noticed"
    );
}

#[test]
fn commands_are_found() {
    let page = "text\n```sh\na 1 # x\n\nb\n```\n`c`\n   ```console\n   $ d\n   what it says\n   ```\n```toml\ne = 1\n```\n";
    assert_eq!(commands(page), ["a 1 # x", "b", "d"]);
    assert_eq!(known_words("turnhook replay --endpoint NAME"), ["replay"]);
    assert_eq!(
        known_words("turnhook deliveries list --state dead"),
        ["deliveries", "list", "--state", "dead"]
    );
}
