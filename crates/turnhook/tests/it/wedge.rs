//! TRAPS.md, trap 11: a Redis that stands still under load wedges a relay thread of coturn for good. Real programs
//! throughout: Redis is stopped for 25 s while one relay thread is given more to say than its socket takes.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::harness::{
    billing::{Billing, counted, logged_of, redis as program_on, relay_until_reported, sum},
    coturn::Coturn,
    eventually,
    program::Program,
    redis::Redis,
    turn::TurnClient,
};

/// As long as in the measurement that the trap was found by.
const STANDS_STILL: Duration = Duration::from_secs(25);

/// More than the sockets between coturn and Redis hold of what a refresh makes coturn say.
const REFRESHES: u64 = 20_000;

/// Refreshes at full speed from a thread of its own.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<TurnClient>,
}

impl Load {
    fn start(mut client: TurnClient) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if client.refresh(600) == 0 {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
            client
        });
        Load {
            stop,
            answered,
            thread,
        }
    }

    fn end(self) -> TurnClient {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The relay thread of a user's allocation, by coturn's log.
fn relay_thread(coturn: &Coturn, user: &str) -> String {
    let name = format!(":{user}>");
    eventually("the allocation in coturn's log", || {
        let lines = coturn.process.stdout();
        let line = lines
            .iter()
            .find(|l| l.contains(&name) && l.contains("session "))?;
        Some(line.split_once("session ")?.1.get(..3)?.to_owned())
    })
}

/// Calls on a coturn of two relay threads, of which the first is wedged.
struct Wedged {
    billing: Billing,
    program: Program,
    coturn: Coturn,
    redis: Redis,
    /// On the wedged thread, and of this user.
    beside: (TurnClient, String),
    /// On the other.
    elsewhere: (TurnClient, String),
    _directory: tempfile::TempDir,
}

fn wedged(heal: bool, expiry_grace: &str) -> Wedged {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(directory.path(), &[]);
    let source = format!("url = \"redis://127.0.0.1:{}\"\nheal = {heal}", redis.port);
    let mut program = program_on(&billing, &source);
    let file = program.directory.path().join("turnhook.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let quick = "expiry_grace = \"3s\"";
    assert!(text.contains(quick));
    let patient = format!("expiry_grace = \"{expiry_grace}\"");
    std::fs::write(&file, text.replace(quick, &patient)).unwrap();
    program.start();
    program.until("the subscription", |s| {
        s["sources"]["eu-1"]["state"] == "connected"
    });
    let more = ["--relay-threads=2", "--max-allocate-lifetime=15"];
    let coturn = Coturn::start(directory.path(), &redis.statsdb(), &more);

    let loud = TurnClient::udp(&coturn, "loud").call(&coturn);
    let thread = relay_thread(&coturn, "loud");
    let (mut beside, mut elsewhere) = (None, None);
    for number in 0..40 {
        let user = format!("call-{number}");
        let mut client = TurnClient::udp(&coturn, &user).call(&coturn);
        let place = if relay_thread(&coturn, &user) == thread {
            &mut beside
        } else {
            &mut elsewhere
        };
        if place.is_none() {
            relay_until_reported(&mut client, &coturn, &user);
            billing.told(&user, 1);
            *place = Some((client, user));
        } else {
            assert_eq!(client.refresh(0), 0);
        }
        if beside.is_some() && elsewhere.is_some() {
            break;
        }
    }
    let (mut beside, mut elsewhere) = (beside.unwrap(), elsewhere.unwrap());

    redis.process.signal("STOP");
    let load = Load::start(loud);
    let until = Instant::now() + STANDS_STILL;
    eventually("the load", || {
        assert_eq!(beside.0.refresh(600), 0);
        assert_eq!(elsewhere.0.refresh(600), 0);
        (Instant::now() > until && load.answered.load(Ordering::Relaxed) > REFRESHES).then_some(())
    });
    redis.process.signal("CONT");
    let mut loud = load.end();
    assert_eq!(loud.refresh(0), 0);
    Wedged {
        billing,
        program,
        coturn,
        redis,
        beside,
        elsewhere,
        _directory: directory,
    }
}

impl Wedged {
    /// Goes on with both calls until `done`.
    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&Program) -> bool) {
        eventually(what, || {
            assert_eq!(self.beside.0.refresh(600), 0);
            assert_eq!(self.elsewhere.0.refresh(600), 0);
            done(&self.program).then_some(())
        });
    }

    fn wedges(program: &Program, what: &str) -> u64 {
        counted(program, &["turnhook_wedged_threads_total", what])
    }

    /// The call on the other thread was never touched.
    #[track_caller]
    fn elsewhere_is_exact(&mut self) {
        let (client, user) = &mut self.elsewhere;
        assert_eq!(client.refresh(0), 0);
        let session = &self.billing.ended(user, 1)[0];
        assert_eq!((session.end_reason(), session.is_exact()), ("closed", true));
        assert_eq!(session.usage(), sum(logged_of(&self.coturn, user)));
    }
}

/// What `heal` lacks is said when it connects, and not only once a thread is silent.
#[test]
fn rights_that_healing_lacks_are_said_at_once() {
    let billing = Billing::start();
    let directory = tempfile::tempdir().unwrap();
    let fragment = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/redis.conf");
    let redis = Redis::start(directory.path(), &[fragment]);
    let url = format!("redis://turnhook:change-me-too@127.0.0.1:{}", redis.port);
    let mut program = program_on(&billing, &format!("url = \"{url}\"\nheal = true"));
    program.start();
    program.line("for `heal` its user needs the rights +client|list +client|kill");
    program.until("the subscription", |s| {
        s["sources"]["eu-1"]["state"] == "connected"
    });
    program.stop();
    // Those that it has are not called for.
    let text = std::fs::read_to_string(fragment).unwrap();
    let more = directory.path().join("redis.conf");
    std::fs::write(&more, text.replace("+client|id", "+client|id +client|list")).unwrap();
    drop(redis);
    let redis = Redis::start(directory.path(), &[more.to_str().unwrap()]);
    let url = format!("redis://turnhook:change-me-too@127.0.0.1:{}", redis.port);
    let mut program = program_on(&billing, &format!("url = \"{url}\"\nheal = true"));
    program.start();
    program.line("for `heal` its user needs the rights +client|kill");
    program.stop();
}

/// With `heal`, the thread's connection is closed, coturn opens another, and the calls end to the byte.
#[test]
fn a_wedged_relay_thread_is_healed() {
    let mut wedged = wedged(true, "40s");
    wedged.until("the connection to be closed", |program| {
        Wedged::wedges(program, "closed") >= 1
    });
    let status = wedged.program.status();
    let gaps = status["sources"]["eu-1"]["recent_gaps"].as_array().unwrap();
    assert!(gaps.iter().any(|gap| gap["reason"] == "wedged"), "{gaps:?}");
    wedged
        .program
        .line("closed coturn's connection of the silent relay thread");
    wedged.until("the thread to be heard", |program| {
        program.status()["sources"]["eu-1"]["wedged_threads"] == serde_json::json!([])
    });
    let (client, user) = &mut wedged.beside;
    client.relay(100, 100);
    assert_eq!(client.refresh(0), 0);
    let session = &wedged.billing.ended(user, 1)[0];
    assert_eq!((session.end_reason(), session.is_exact()), ("closed", true));
    assert_eq!(session.usage(), sum(logged_of(&wedged.coturn, user)));
    wedged.elsewhere_is_exact();
}

/// Without it the wedge is said, no connection is touched, and the thread's calls expire with what was heard.
#[test]
fn a_wedged_relay_thread_is_reported() {
    let mut wedged = wedged(false, "15s");
    let clients = |redis: &Redis| -> BTreeSet<String> {
        let list = redis.ask(&["client", "list", "type", "normal"]);
        let coturns = list
            .lines()
            .filter(|l| l.contains("name= ") && !l.contains("cmd=client"));
        coturns
            .filter_map(|l| l.split(' ').next().map(str::to_owned))
            .collect()
    };
    let before = clients(&wedged.redis);
    wedged.until("the wedge to be seen", |program| {
        Wedged::wedges(program, "silent") >= 1
    });
    wedged.program.line(
        "a relay thread of coturn has fallen silent: what its allocations carry is not heard; restart that coturn, or set `heal = true`",
    );
    let told = wedged.program.ask(&["status"]);
    assert!(
        told.contains("fallen silent: restart that coturn, or set heal = true"),
        "{told}"
    );
    let (client, user) = &mut wedged.beside;
    client.relay(100, 100);
    let user = user.clone();
    eventually("the expiry", || {
        assert_eq!(wedged.elsewhere.0.refresh(600), 0);
        wedged.billing.sessions_of(&user)[0].has_ended().then_some(())
    });
    let session = &wedged.billing.ended(&user, 1)[0];
    assert_eq!((session.end_reason(), session.is_exact()), ("expired", false));
    let truth = wedged.beside.0.sent + wedged.beside.0.received;
    assert!(
        session.billable() > 0 && session.billable() < truth,
        "{session:#?} {truth}"
    );
    assert_eq!(Wedged::wedges(&wedged.program, "closed"), 0);
    assert_eq!(clients(&wedged.redis), before);
    wedged.elsewhere_is_exact();
}
