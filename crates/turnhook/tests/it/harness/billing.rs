//! A receiver that bills: it keeps every webhook, checks each as it comes, and knows what a session adds up to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use serde_json::Value;
use turnhook_dispatcher::signature::{self, Secret};

use super::{
    coturn::{Coturn, Logged},
    eventually,
    program::{Program, SECRET, endpoint},
    schema,
    turn::TurnClient,
};

/// An event as it came.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) body: Value,
}

impl Webhook {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.body["type"] == kind
    }

    pub(crate) fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// Whether it is of no session.
    fn is_of_user(&self) -> bool {
        !self.data()["all_realms"].is_null()
    }
}

/// What billing knows of a session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// In sequence.
    pub(crate) events: Vec<Webhook>,
}

impl Session {
    fn last(&self) -> &Value {
        self.events.last().unwrap().data()
    }

    pub(crate) fn user(&self) -> &str {
        self.last()["user"].as_str().unwrap_or_default()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.events.last().unwrap().is("session.end")
    }

    pub(crate) fn end_reason(&self) -> &str {
        self.last()["end_reason"].as_str().unwrap_or("not ended")
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.last()["accuracy"] == "exact"
    }

    pub(crate) fn continues(&self) -> bool {
        !self.last()["continues"].is_null()
    }

    /// As told last.
    pub(crate) fn usage(&self) -> Logged {
        let usage = &self.last()["usage"];
        Logged {
            client: counters(&usage["client"]),
            peer: counters(&usage["peer"]),
        }
    }

    pub(crate) fn billable(&self) -> u64 {
        self.last()["usage"]["billable_bytes"].as_u64().unwrap()
    }

    pub(crate) fn allocations(&self) -> &[Value] {
        self.last()["allocations"].as_array().unwrap()
    }
}

fn counters(value: &Value) -> [u64; 4] {
    ["received_packets", "received_bytes", "sent_packets", "sent_bytes"]
        .map(|name| value[name].as_u64().unwrap())
}

#[derive(Default)]
struct Kept {
    /// In the order in which they came first.
    webhooks: Vec<Webhook>,
    wrong: Vec<String>,
    /// What it answers to events of a user.
    answers: BTreeMap<String, String>,
}

pub(crate) struct Billing {
    kept: Arc<Mutex<Kept>>,
    port: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Billing {
    pub(crate) fn start() -> Billing {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let router = Router::new()
            .route("/", post(receive))
            .with_state(Arc::clone(&kept));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Billing {
            kept,
            port,
            _runtime: runtime,
        }
    }

    /// From now on it answers so to events of this user.
    pub(crate) fn answer(&self, user: &str, body: &str) {
        let mut kept = self.kept.lock().unwrap();
        kept.answers.insert(user.to_owned(), body.to_owned());
    }

    /// An `[[endpoint]]` that is this, by another name.
    pub(crate) fn endpoint_named(&self, name: &str) -> String {
        endpoint(name, &format!("http://127.0.0.1:{}/", self.port), "")
    }

    /// An `[[endpoint]]` that is this.
    pub(crate) fn endpoint(&self) -> String {
        endpoint("billing", &format!("http://127.0.0.1:{}/", self.port), "")
    }

    /// An `[[endpoint]]` that is this and wants all there is, with more lines.
    pub(crate) fn endpoint_of_all(&self, name: &str, more: &str) -> String {
        let events = "events = [\"session.start\", \"session.usage\", \"session.end\", \"quota.reached\", \
             \"user.blocked\", \"user.unblocked\"]\n";
        endpoint(
            name,
            &format!("http://127.0.0.1:{}/", self.port),
            &format!("{events}{more}"),
        )
    }

    /// The events of a user that are of no session, in the order in which they came.
    #[track_caller]
    pub(crate) fn of_user(&self, user: &str) -> Vec<Webhook> {
        let all = self.webhooks().into_iter();
        all.filter(|webhook| webhook.is_of_user() && webhook.data()["user"] == user)
            .collect()
    }

    /// Waits for so many of them; their types, and why.
    #[track_caller]
    pub(crate) fn told_of(&self, user: &str, count: usize) -> Vec<String> {
        let all = eventually(&format!("{count} events of {user}"), || {
            Some(self.of_user(user)).filter(|all| all.len() >= count)
        });
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.iter()
            .map(|webhook| {
                format!(
                    "{}: {}",
                    word(&webhook.body["type"]),
                    word(&webhook.data()["reason"])
                )
            })
            .collect()
    }

    /// What came, once each. Fails if anything was wrong with any of it.
    #[track_caller]
    pub(crate) fn webhooks(&self) -> Vec<Webhook> {
        let kept = self.kept.lock().unwrap();
        assert_eq!(kept.wrong, Vec::<String>::new());
        kept.webhooks.clone()
    }

    /// The sessions, oldest first, each of the shape that it must have.
    #[track_caller]
    pub(crate) fn sessions(&self) -> Vec<Session> {
        let webhooks = self.webhooks();
        let mut sessions: Vec<Session> = Vec::new();
        let mut places = BTreeMap::new();
        for webhook in webhooks.into_iter().filter(|webhook| !webhook.is_of_user()) {
            let id = webhook.data()["session_id"].as_str().unwrap().to_owned();
            let place = *places.entry(id.clone()).or_insert(sessions.len());
            if place == sessions.len() {
                sessions.push(Session {
                    id,
                    events: Vec::new(),
                });
            }
            sessions[place].events.push(webhook);
        }
        for session in &mut sessions {
            session
                .events
                .sort_by_key(|e| e.data()["sequence"].as_u64().unwrap());
            check(session);
        }
        sessions
    }

    /// Of one user.
    #[track_caller]
    pub(crate) fn sessions_of(&self, user: &str) -> Vec<Session> {
        self.sessions().into_iter().filter(|s| s.user() == user).collect()
    }

    /// Waits until there are so many sessions of a user, all ended.
    #[track_caller]
    pub(crate) fn ended(&self, user: &str, count: usize) -> Vec<Session> {
        eventually(&format!("{count} ended sessions of {user}"), || {
            let sessions = self.sessions_of(user);
            let done = sessions.len() >= count && sessions.iter().all(Session::has_ended);
            done.then_some(sessions)
        })
    }

    /// Waits for the start of a user's session.
    #[track_caller]
    pub(crate) fn started(&self, user: &str) {
        eventually(&format!("a session of {user}"), || {
            self.sessions_of(user).into_iter().find(|s| !s.has_ended())
        });
    }

    /// Waits until a user's sessions, ended or not, have told so many billable bytes.
    #[track_caller]
    pub(crate) fn told(&self, user: &str, bytes: u64) {
        eventually(&format!("{bytes} bytes of {user}"), || {
            let sum: u64 = self.sessions_of(user).iter().map(Session::billable).sum();
            (sum >= bytes).then_some(())
        });
    }
}

/// One start, no holes, nothing after an end; the deltas sum to the end's usage.
#[track_caller]
fn check(session: &Session) {
    let mut deltas = (Logged::default(), 0);
    for (place, event) in session.events.iter().enumerate() {
        let data = event.data();
        assert_eq!(data["sequence"], place, "holes or repeats: {session:#?}");
        assert_eq!(event.is("session.start"), place == 0, "{session:#?}");
        assert!(
            !event.is("session.end") || place + 1 == session.events.len(),
            "{session:#?}"
        );
        let delta = &data["usage_delta"];
        let sums = deltas.0.client.iter_mut().chain(&mut deltas.0.peer);
        let legs = [counters(&delta["client"]), counters(&delta["peer"])];
        for (sum, counter) in sums.zip(legs.iter().flatten()) {
            *sum += counter;
        }
        deltas.1 += delta["billable_bytes"].as_u64().unwrap();
    }
    assert_eq!(deltas, (session.usage(), session.billable()), "{session:#?}");
}

async fn receive(
    State(kept): State<Arc<Mutex<Kept>>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> (StatusCode, String) {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let id = header("webhook-id").to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let verified = signature::verify(
        &[Secret::parse(SECRET).unwrap()],
        &id,
        header("webhook-timestamp"),
        header("webhook-signature"),
        &bytes,
        now,
    );
    let mut kept = kept.lock().unwrap();
    if let Err(error) = verified {
        kept.wrong.push(format!("{id}: {error}"));
    }
    let user = serde_json::from_slice::<Value>(&bytes).unwrap_or_default()["data"]["user"].clone();
    let answer = user.as_str().and_then(|user| kept.answers.get(user).cloned());
    match kept.webhooks.iter().position(|webhook| webhook.id == id) {
        Some(place) if kept.webhooks[place].bytes != bytes => {
            kept.wrong
                .push(format!("{id} came twice, and not with the same bytes"));
        }
        Some(_) => {}
        None => match serde_json::from_slice(&bytes) {
            Ok(body) => {
                kept.wrong.extend(schema::faults(&body));
                kept.webhooks.push(Webhook {
                    id,
                    bytes: bytes.to_vec(),
                    body,
                });
            }
            Err(error) => kept.wrong.push(format!("{id}: {error}")),
        },
    }
    match answer {
        Some(answer) => (StatusCode::OK, answer),
        None => (StatusCode::NO_CONTENT, String::new()),
    }
}

/// What coturn logged of a user's allocations, one by one.
pub(crate) fn logged_of(coturn: &Coturn, user: &str) -> Vec<Logged> {
    let lives = coturn.logged_in_all_lives();
    let allocations = lives.iter().flatten();
    allocations
        .filter(|((_, username), _)| username.split(':').next_back() == Some(user))
        .map(|(_, logged)| *logged)
        .collect()
}

/// The sum.
pub(crate) fn sum(all: impl IntoIterator<Item = Logged>) -> Logged {
    let mut sum = Logged::default();
    for one in all {
        let counters = one.client.iter().chain(&one.peer);
        for (sum, counter) in sum.client.iter_mut().chain(&mut sum.peer).zip(counters) {
            *sum += counter;
        }
    }
    sum
}

/// What of it was relayed, where no stranger sent anything: what peers were sent, and what came from them and was
/// sent on.
pub(crate) fn relayed(logged: &Logged) -> u64 {
    logged.peer[3] + logged.peer[1].min(logged.client[3])
}

/// Relays until coturn has reported, which it does every 4096 packets at most.
pub(crate) fn relay_until_reported(client: &mut TurnClient, coturn: &Coturn, user: &str) {
    eventually("a report", || {
        client.relay(512, 200);
        (sum(logged_of(coturn, user)).peer[3] > 0).then_some(())
    });
}

/// How often a metric's line that contains all of `parts` was counted.
pub(crate) fn counted(program: &Program, parts: &[&str]) -> u64 {
    let (_, text) = program.get("/metrics");
    let lines = text
        .lines()
        .filter(|line| parts.iter().all(|part| line.contains(part)));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Quick sessions, so that a test ends soon: everything else as in the defaults.
pub(crate) const QUICK: &str = "[session]\nlinger = \"1s\"\ntotals_grace = \"2s\"\nreport_grace = \"4s\"\n\
expiry_grace = \"3s\"\nusage_interval = \"1s\"\n";

/// A program that listens for coturn, and tells `billing`; not yet started.
pub(crate) fn direct(billing: &Billing) -> Program {
    Program::new(&format!("{QUICK}{}", billing.endpoint()))
}

/// A program that subscribes to a Redis (`source`: the lines of its `[[source]]` but for name and type).
pub(crate) fn redis(billing: &Billing, source: &str) -> Program {
    let program = Program::new("");
    let text = format!(
        "shutdown_grace = \"5s\"\n[[source]]\nname = \"eu-1\"\ntype = \"redis\"\n{source}\n\
         [http]\nlisten = \"127.0.0.1:{}\"\n{QUICK}{}",
        program.http,
        billing.endpoint()
    );
    std::fs::write(program.directory.path().join("turnhook.toml"), text).unwrap();
    program
}

/// What a coturn whose listener is the program has as its `redis-statsdb`.
pub(crate) fn statsdb(program: &Program, dbname: u32) -> String {
    format!(
        "ip=127.0.0.1 port={} dbname={dbname} connect_timeout=5",
        program.source
    )
}
