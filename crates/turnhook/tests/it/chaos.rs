//! Everything goes wrong at once: receivers fail in every way while the program is killed again and again.
//! What must hold afterwards is what a billing team stands on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use turnhook_store::{Mode, Store};

use crate::harness::{
    eventually,
    feeder::{Allocation, Feeder},
    program::{Program, endpoint},
    receiver::{Received, Receiver, Reply},
};

/// How often the program is killed.
const KILLS: usize = 40;

/// SplitMix64: small, and the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A request, and what the receiver made of it.
pub(crate) struct Taken {
    id: String,
    session: String,
    sequence: u64,
    body: Vec<u8>,
    reply: Reply,
    /// Whether the program may take the answer for a success.
    success: bool,
}

/// What an endpoint got, in the order in which it decided about it.
#[derive(Clone, Default)]
pub(crate) struct Books(Arc<Mutex<Vec<Taken>>>);

impl Books {
    pub(crate) fn enter(&self, request: &Received, reply: &Reply) {
        let event: Value = serde_json::from_slice(&request.body).unwrap();
        let success = match reply {
            Reply::Status(status) => (200..300).contains(status),
            // Answered 200, whatever became of the body.
            Reply::Body(_) | Reply::Endless | Reply::Drip | Reply::ResetInBody | Reply::CloseAfter => true,
            _ => false,
        };
        self.0.lock().unwrap().push(Taken {
            id: request.id().to_owned(),
            session: event["data"]["session_id"].as_str().unwrap().to_owned(),
            sequence: event["data"]["sequence"].as_u64().unwrap(),
            body: request.body.clone(),
            reply: reply.clone(),
            success,
        });
    }

    /// Each event once, with the same bytes each time it came.
    pub(crate) fn events(&self) -> BTreeMap<String, (Vec<u8>, bool)> {
        let mut events: BTreeMap<String, (Vec<u8>, bool)> = BTreeMap::new();
        for taken in self.0.lock().unwrap().iter() {
            let (body, success) = events
                .entry(taken.id.clone())
                .or_insert_with(|| (taken.body.clone(), false));
            assert!(*body == taken.body, "{} came with other bytes", taken.id);
            *success |= taken.success;
        }
        events
    }

    /// What was answered to an event, each time that it came.
    fn replies(&self, id: &str) -> Vec<Reply> {
        let taken = self.0.lock().unwrap();
        taken
            .iter()
            .filter(|taken| taken.id == id)
            .map(|taken| taken.reply.clone())
            .collect()
    }

    /// Nothing came before what goes before it in its session (`sequences` has its events) was taken.
    pub(crate) fn assert_order(&self, endpoint: &str, sequences: &HashMap<String, BTreeSet<u64>>) {
        let mut taken: BTreeSet<(String, u64)> = BTreeSet::new();
        for one in self.0.lock().unwrap().iter() {
            let before = sequences[&one.session].range(..one.sequence).next_back();
            if let Some(before) = before {
                assert!(
                    taken.contains(&(one.session.clone(), *before)),
                    "{endpoint}: {} #{} came before #{before} was taken",
                    one.session,
                    one.sequence
                );
            }
            if one.success {
                taken.insert((one.session.clone(), one.sequence));
            }
        }
    }
}

/// Faults in some of a thousand answers; none of them a success that is not one.
pub(crate) fn fault(random: &mut Random, per_mille: u64) -> Reply {
    if random.below(1000) >= per_mille {
        return Reply::Status(if random.below(4) == 0 { 204 } else { 200 });
    }
    let status = if random.below(2) == 0 { 429 } else { 503 };
    match random.below(17) {
        0 => Reply::Close,
        1 => Reply::Reset,
        2 => Reply::ResetInHead,
        3 => Reply::ResetInBody,
        4 => Reply::Garbage,
        5 => Reply::Hang,
        6 => Reply::Late(Duration::from_millis(600)),
        7 => Reply::Headers(status, "retry-after: 1\r\n".into()),
        8 => {
            let date = httpdate(SystemTime::now() + Duration::from_secs(1));
            Reply::Headers(status, format!("retry-after: {date}\r\n"))
        }
        9 => Reply::Headers(302, "location: http://127.0.0.1:1/elsewhere\r\n".into()),
        10 => Reply::Status(500),
        11 => Reply::Status(404),
        12 => Reply::Status(408),
        13 => Reply::Endless,
        14 => Reply::Drip,
        15 => Reply::Body(vec![b'y'; 100_000]),
        _ => Reply::CloseAfter,
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn httpdate(at: SystemTime) -> String {
    let seconds = i64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    jiff::Timestamp::from_second(seconds)
        .unwrap()
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string()
}

/// Calls of some users, most of which overlap the death of a program. What coturn would say of them is the truth.
fn calls(port: u16, mut random: Random, stop: &AtomicBool) -> Vec<Allocation> {
    const LIFETIME: u32 = 6;
    let mut next = 1;
    let mut open: Vec<Allocation> = Vec::new();
    let mut all: Vec<Allocation> = Vec::new();
    let mut feeder: Option<Feeder> = None;
    while !stop.load(Ordering::Relaxed) || !open.is_empty() {
        std::thread::sleep(Duration::from_millis(random.below(8)));
        // A message that nobody takes is lost, as coturn loses it.
        let Some(connection) = &mut feeder else {
            feeder = Feeder::try_connect(port).ok();
            continue;
        };
        let closing = stop.load(Ordering::Relaxed);
        let sent = match random.below(10) {
            0 | 1 if !closing && open.len() < 40 => {
                let allocation = Allocation::new(
                    &format!("17954136{:02}:cust_{}", next % 7, random.below(80)),
                    next,
                );
                next += 1;
                let sent = connection.open(&allocation, LIFETIME);
                open.push(allocation);
                sent
            }
            2 if !open.is_empty() => {
                let which = random.below(open.len() as u64) as usize;
                let allocation = open.swap_remove(which);
                let sent = connection.close(&allocation);
                all.push(allocation);
                sent
            }
            3 if !open.is_empty() => {
                let which = random.below(open.len() as u64) as usize;
                connection.refresh(&open[which], LIFETIME)
            }
            _ if !open.is_empty() => {
                let which = random.below(open.len() as u64) as usize;
                let (up, down) = (random.below(3000) + 1, random.below(3000));
                connection.relay(&mut open[which], up, down)
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            feeder = None;
        }
    }
    all
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// The nine counters of a `usage`, by name.
fn add_usage(sums: &mut BTreeMap<String, u64>, usage: &Value) {
    *sums.entry("billable".into()).or_default() += number(&usage["billable_bytes"]);
    for leg in ["client", "peer"] {
        for (name, counter) in usage[leg].as_object().unwrap() {
            *sums.entry(format!("{leg} {name}")).or_default() += number(counter);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_made_up() {
    let seed = std::env::var("CHAOS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap()
    });
    println!("CHAOS_SEED={seed}");
    let mut random = Random(seed);

    let rate = Arc::new(AtomicU64::new(300));
    let start_receiver = |books: Books, mut random: Random| {
        let rate = Arc::clone(&rate);
        random.next();
        let random = Mutex::new(random);
        Receiver::start(move |request| {
            let mut random = random.lock().unwrap();
            let reply = fault(&mut random, rate.load(Ordering::Relaxed));
            books.enter(request, &reply);
            reply
        })
    };
    let (all_books, end_books) = (Books::default(), Books::default());
    let all = start_receiver(all_books.clone(), Random(seed ^ 1)).await;
    let ends = start_receiver(end_books.clone(), Random(seed ^ 2)).await;

    let policy = "timeout = \"400ms\"\n\
                  retry = { initial = \"30ms\", max = \"300ms\", retry_after_max = \"1s\", give_up_after = \"10h\" }\n";
    let mut program = Program::new(&format!(
        "[session]\nlinger = \"100ms\"\ntotals_grace = \"500ms\"\nreport_grace = \"2s\"\nexpiry_grace = \"2s\"\n\
         usage_interval = \"1s\"\nresidue = \"1B\"\n{}{}",
        endpoint("all", &all.url(), policy),
        endpoint(
            "ends",
            &ends.url(),
            &format!("{policy}events = [\"session.end\"]\n")
        ),
    ));

    let stop = Arc::new(AtomicBool::new(false));
    let port = program.source;
    let feeding = {
        let (stop, random) = (Arc::clone(&stop), Random(seed ^ 3));
        std::thread::spawn(move || calls(port, random, &stop))
    };

    let mut delivered_between_kills = BTreeSet::new();
    for kill in 0..KILLS {
        program.launch();
        // Some die while they start.
        let life = if kill % 5 == 4 {
            random.below(150)
        } else {
            150 + random.below(1200)
        };
        let half = Duration::from_millis(life / 2);
        tokio::time::sleep(half).await;
        let down = random.below(6) == 0;
        if down {
            all.go_down();
        }
        tokio::time::sleep(half).await;
        program.kill();
        if down {
            all.come_back().await;
        }
        if random.below(3) == 0 {
            // What coturn says meanwhile is lost.
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        }
        delivered_between_kills.insert(all_books.0.lock().unwrap().len());
    }
    assert!(
        delivered_between_kills.len() > KILLS / 4,
        "it was killed too early to deliver anything: {delivered_between_kills:?}"
    );

    program.launch();
    stop.store(true, Ordering::Relaxed);
    let truth = feeding.join().unwrap();
    program.until("all sessions to end", |status| {
        number(&status["sources"]["eu-1"]["open_sessions"]) == 0
    });
    // `/status` may tell of the last ends before they are committed, and counts deliveries now and then:
    // what is committed when it has stopped is all there will be.
    program.stop();
    rate.store(100, Ordering::Relaxed);
    program.launch();
    eventually("all deliveries", || {
        program.deliveries("pending").is_empty().then_some(())
    });
    program.stop();

    // Each event once in effect, always the same bytes, and each of them is in the store.
    let (told, told_ends) = (all_books.events(), end_books.events());
    let store = Store::open(program.directory.path().join("turnhook.db"), Mode::Shared)
        .await
        .unwrap();
    for (id, (body, success)) in told.iter().chain(&told_ends) {
        let found = store.ledger().delivery(id.parse().unwrap()).await.unwrap();
        assert!(!found.is_empty(), "{id} was delivered and never committed");
        assert!(
            found.iter().all(|one| one.body == *body),
            "{id} is other bytes in the store"
        );
        assert!(
            success,
            "{id} was never taken: {:?}\n{found:?}",
            [all_books.replies(id), end_books.replies(id)]
        );
    }
    for (name, events) in [("all", &told), ("ends", &told_ends)] {
        let rows = program.objects(&["deliveries", "list", "--limit", "1000000", "--endpoint", name]);
        assert!(rows.iter().all(|row| row["state"] == "delivered"), "{name}");
        let stored: BTreeSet<&str> = rows
            .iter()
            .map(|row| row["webhook_id"].as_str().unwrap())
            .collect();
        assert!(
            stored.iter().eq(events.keys()),
            "{name}: what is in the store is not what came"
        );
    }

    // Each session whole: from 0 on without holes, ended once, its deltas the sum in its end.
    let mut sessions: BTreeMap<String, BTreeMap<u64, Value>> = BTreeMap::new();
    for (body, _) in told.values() {
        let event: Value = serde_json::from_slice(body).unwrap();
        let session = event["data"]["session_id"].as_str().unwrap().to_owned();
        let twice = sessions
            .entry(session)
            .or_default()
            .insert(number(&event["data"]["sequence"]), event);
        assert!(twice.is_none(), "two events with one sequence number");
    }
    let mut by_day: BTreeMap<(String, String), BTreeMap<String, u64>> = BTreeMap::new();
    let mut by_allocation: HashMap<String, (BTreeMap<String, u64>, bool)> = HashMap::new();
    for (session, events) in &sessions {
        assert!(
            events.keys().copied().eq(0..events.len() as u64),
            "{session} has a hole"
        );
        let mut sum = BTreeMap::new();
        for (sequence, event) in events {
            let data = &event["data"];
            let last = *sequence + 1 == events.len() as u64;
            assert_eq!(event["type"] == "session.end", last, "{session}");
            assert_eq!(event["type"] == "session.start", *sequence == 0, "{session}");
            add_usage(&mut sum, &data["usage_delta"]);
            let day = event["timestamp"].as_str().unwrap()[..10].to_owned();
            add_usage(
                by_day.entry((day, data["user"].to_string())).or_default(),
                &data["usage_delta"],
            );
            let mut usage = BTreeMap::new();
            add_usage(&mut usage, &data["usage"]);
            assert_eq!(sum, usage, "{session} #{sequence}: the deltas are not the sum");
        }
        let end = events.values().next_back().unwrap();
        for allocation in end["data"]["allocations"].as_array().unwrap() {
            let id = allocation["id"].as_str().unwrap().to_owned();
            let (sums, whole) = by_allocation.entry(id).or_default();
            let mut usage = allocation["usage"].clone();
            usage["billable_bytes"] = 0.into();
            add_usage(sums, &usage);
            *whole |= allocation["totals_seen"].as_bool().unwrap();
        }
    }

    // The ledger says the same as the receiver, to the byte.
    let mut ledger: BTreeMap<(String, String), BTreeMap<String, u64>> = BTreeMap::new();
    for row in program.objects(&["sessions", "export"]) {
        let key = (row["day"].as_str().unwrap().to_owned(), row["user"].to_string());
        add_usage(ledger.entry(key).or_default(), &row["usage"]);
    }
    assert_eq!(
        by_day.iter().collect::<Vec<_>>(),
        ledger.iter().collect::<Vec<_>>()
    );

    // And never more than coturn counted; all of it where its totals were heard.
    let (mut whole, mut partial) = (0, 0);
    for allocation in &truth {
        let Some((told, totals_seen)) = by_allocation.get(&allocation.name()) else {
            partial += 1;
            continue;
        };
        let names = ["received_packets", "received_bytes", "sent_packets", "sent_bytes"];
        for (leg, counters) in [("client", &allocation.client), ("peer", &allocation.peer)] {
            for (name, counter) in names.iter().zip(counters) {
                let told = told[&format!("{leg} {name}")];
                assert!(
                    told <= *counter,
                    "{}: {leg} {name}: told {told} of {counter}",
                    allocation.name()
                );
                if *totals_seen {
                    assert_eq!(told, *counter, "{}: {leg} {name}", allocation.name());
                }
            }
        }
        if *totals_seen { whole += 1 } else { partial += 1 }
    }

    // In sequence, at each endpoint.
    let sequences = |types: &[&str]| -> HashMap<String, BTreeSet<u64>> {
        let wanted = |event: &Value| types.iter().any(|one| event["type"] == *one);
        let numbers = |events: &BTreeMap<u64, Value>| {
            events
                .iter()
                .filter(|(_, event)| wanted(event))
                .map(|(n, _)| *n)
                .collect()
        };
        sessions
            .iter()
            .map(|(session, events)| (session.clone(), numbers(events)))
            .collect()
    };
    all_books.assert_order(
        "all",
        &sequences(&["session.start", "session.usage", "session.end"]),
    );
    end_books.assert_order("ends", &sequences(&["session.end"]));

    let requests = all_books.0.lock().unwrap().len() + end_books.0.lock().unwrap().len();
    println!(
        "{KILLS} kills, {} sessions, {} events in {requests} requests; of {} allocations {whole} told in full, {partial} in part",
        sessions.len(),
        told.len() + told_ends.len(),
        truth.len(),
    );
    assert!(
        whole > 100 && sessions.len() > 100,
        "too little happened to show anything"
    );
}
