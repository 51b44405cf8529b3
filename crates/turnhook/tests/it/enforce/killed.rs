//! Killed between asking coturn for an end and hearing of it: what coturn was asked for is on record before, so its end is
//! known for what it is. Whoever hung up by himself is not said to have been cut off.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
};

use super::{control, coturn, direct, is_cut_off};
use crate::harness::{
    DEADLINE,
    billing::{Billing, redis, statsdb},
    eventually, free_port,
    nodes::{Shared, leader, ready},
    redis::Redis,
    turn::TurnClient,
};

/// Stands between controls and coturn's CLI, and holds back a command that the test names.
struct Between {
    port: u16,
    hold: Arc<Mutex<Option<&'static str>>>,
    held: mpsc::Receiver<mpsc::Sender<()>>,
}

impl Between {
    fn start(cli: u16) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let hold: Arc<Mutex<Option<&'static str>>> = Arc::default();
        let (holds, held) = mpsc::channel();
        let wanted = Arc::clone(&hold);
        std::thread::spawn(move || {
            for program in listener.incoming() {
                // Where coturn is not there, the control finds that its connection is closed.
                let Ok(coturn) = TcpStream::connect(("127.0.0.1", cli)) else {
                    continue;
                };
                let program = program.unwrap();
                coturn.set_nodelay(true).unwrap();
                program.set_nodelay(true).unwrap();
                let (back, to) = (coturn.try_clone().unwrap(), program.try_clone().unwrap());
                std::thread::spawn(move || pump(back, to, |_| {}));
                let (wanted, holds) = (Arc::clone(&wanted), holds.clone());
                std::thread::spawn(move || {
                    pump(program, coturn, |said| {
                        let holding = wanted
                            .lock()
                            .unwrap()
                            .take_if(|word| said.starts_with(word.as_bytes()));
                        if holding.is_some() {
                            let (go, goes) = mpsc::channel();
                            holds.send(go).unwrap();
                            // The test may be over.
                            let _ = goes.recv();
                        }
                    });
                });
            }
        });
        Between { port, hold, held }
    }

    /// From now on it holds back the next command that begins so.
    fn hold(&self, command: &'static str) {
        *self.hold.lock().unwrap() = Some(command);
    }

    /// Waits until it does. What lets it go on.
    #[track_caller]
    fn held(&self) -> mpsc::Sender<()> {
        self.held.recv_timeout(DEADLINE).unwrap()
    }
}

/// One read is one write: coturn takes each segment for one command.
fn pump(mut from: TcpStream, mut to: TcpStream, look: impl Fn(&[u8])) {
    let mut buffer = [0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        look(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn the_node_that_takes_over_knows_who_was_cut_off() {
    let (billing, cli) = (Billing::start(), free_port());
    let between = Between::start(cli);
    let shared = Shared::start("2s", format!("{}{}", billing.endpoint(), control(between.port)));
    let mut nodes = shared.nodes(2);
    let coturn = coturn(shared.directory.path(), &shared.redis.statsdb(), cli, &[]);

    // The leader says it, and never hears what comes of it. Meanwhile he is unblocked.
    let leads = leader(&nodes);
    nodes[leads].program.line("allocations can be ended");
    let mut ann = TurnClient::udp(&coturn, "ann").call(&coturn);
    ann.relay(20, 200);
    billing.started("ann");
    let other = &nodes[1 - leads].program;
    between.hold("cs ");
    other.ask(&["block", "ann", "--reason", "balance"]);
    let go = between.held();
    other.ask(&["unblock", "ann"]);
    nodes[leads].pause();
    go.send(()).unwrap();
    eventually("the cut", || (ann.refresh(600) != 0).then_some(()));
    nodes[leads].kill();
    let ended = billing.ended("ann", 1).remove(0);
    assert_eq!(ended.end_reason(), "cancelled", "{ended:#?}");
    assert!(ended.is_exact(), "{ended:#?}");
    let end = ended.events.last().unwrap().data();
    assert_eq!(end["block_reason"], "balance");
    assert_eq!(end["allocations"][0]["close_reason"], "cancelled");
    nodes[leads].launch();
    ready(&nodes);

    // He was about to be cut off, and hung up before that was asked for: he was blocked before his end, and not the cause.
    let leads = leader(&nodes);
    nodes[leads].program.line("allocations can be ended");
    let mut bob = TurnClient::tcp(&coturn, "bob").call(&coturn);
    bob.relay(20, 200);
    billing.started("bob");
    between.hold("ps ");
    nodes[1 - leads]
        .program
        .ask(&["block", "bob", "--reason", "balance"]);
    let go = between.held();
    nodes[leads].pause();
    drop(bob);
    nodes[leads].kill();
    drop(go);
    let ended = billing.ended("bob", 1).remove(0);
    assert_eq!(ended.end_reason(), "closed", "{ended:#?}");
    nodes[1 - leads].stop();
}

/// What is to be on record first is not waited for for ever: a store that stands still keeps nobody on the line.
#[test]
fn a_store_that_stands_still_holds_up_no_end() {
    let (billing, cli) = (Billing::start(), free_port());
    let between = Between::start(cli);
    let mut program = direct(&billing, between.port, "");
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    program.line("allocations can be ended");
    let mut ann = TurnClient::udp(&coturn, "ann").call(&coturn);
    ann.relay(20, 200);
    billing.started("ann");
    between.hold("ps ");
    program.ask(&["block", "ann", "--reason", "balance"]);
    let go = between.held();
    let store = rusqlite::Connection::open(program.directory.path().join("turnhook.db")).unwrap();
    store.busy_timeout(DEADLINE).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    go.send(()).unwrap();
    eventually("the cut", || (ann.refresh(600) != 0).then_some(()));
    store.execute_batch("ROLLBACK").unwrap();
    is_cut_off(&billing.ended("ann", 1)[0], "balance", &coturn);
    program.stop();
}

/// Nobody else listens: what coturn says of the end is lost, and all that is known is that it was asked for.
#[test]
fn the_program_that_is_started_again_knows_who_was_cut_off() {
    let (billing, cli) = (Billing::start(), free_port());
    let between = Between::start(cli);
    let directory = tempfile::tempdir().unwrap();
    let server = Redis::start(directory.path(), &[]);
    let source = format!(
        "url = \"redis://127.0.0.1:{}\"\n{}",
        server.port,
        control(between.port)
    );
    let mut program = redis(&billing, &source);
    program.start();
    let coturn = coturn(
        directory.path(),
        &server.statsdb(),
        cli,
        &["--max-allocate-lifetime=5"],
    );
    program.line("allocations can be ended");
    let mut bystander = TurnClient::tcp(&coturn, "bystander").call(&coturn);
    bystander.relay(20, 200);

    let mut bob = TurnClient::tcp(&coturn, "bob").call(&coturn);
    bob.relay(20, 200);
    billing.started("bob");
    between.hold("ps ");
    program.ask(&["block", "bob", "--reason", "balance"]);
    let go = between.held();
    program.process().signal("STOP");
    let mut end = server.subscribe("turn/*:bob/*/total_traffic/peer");
    drop(bob);
    // What coturn says of it is said before anybody listens again.
    end.line("the end of bob's allocation", |line| {
        (line == "pmessage").then_some(())
    });
    program.kill();
    drop(go);
    program.start();
    program.line("allocations can be ended");

    let mut ann = TurnClient::udp(&coturn, "ann").call(&coturn);
    ann.relay(20, 200);
    billing.started("ann");
    between.hold("cs ");
    program.ask(&["block", "ann", "--reason", "balance"]);
    let go = between.held();
    program.process().signal("STOP");
    go.send(()).unwrap();
    eventually("the cut", || (ann.refresh(600) != 0).then_some(()));
    program.kill();
    program.start();

    // Their lifetimes run out.
    for (user, reason) in [("bob", "expired"), ("ann", "cancelled")] {
        eventually(&format!("the end of {user}"), || {
            assert_eq!(bystander.refresh(600), 0);
            let sessions = billing.sessions_of(user);
            (sessions.len() == 1 && sessions[0].has_ended()).then_some(())
        });
        let ended = billing.ended(user, 1).remove(0);
        assert_eq!(ended.end_reason(), reason, "{ended:#?}");
    }
    assert!(billing.sessions_of("bystander").iter().all(|s| !s.has_ended()));
    program.stop();
}
