//! An endpoint's queue, an outbox that survives, and a product, on a clock that is set.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use turnhook_dispatcher::{
    body::body,
    config::EndpointConfig,
    provider::{
        Meter, Settings,
        account::{Account, Anonymous, CustomerFrom, Late, Unknown},
        batch::{Batch, Heard, Whole},
        customers::Customers,
        kind,
    },
    queue::{Bounds, Page, Queue, Queued, Standstill, Wanted},
    samples::{self, Case},
};
use turnhook_reducer::{
    event::{EventType, SessionId},
    outbox::{Delivery, DeliveryId, EndpointId, Next, Sent},
    time::Timestamp,
};

use super::fake::{FAULTS, Fake, Fault, Kind};

const START: u64 = 1_795_327_257_624;
const SESSIONS: u8 = 6;
const EACH: u32 = 5;

/// What a history is like.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) window: Duration,
    pub(crate) oldest: Option<Duration>,
    pub(crate) late: Late,
    /// Whether time sometimes jumps ahead by hours.
    pub(crate) jumps: bool,
    pub(crate) faults: bool,
    pub(crate) kills: bool,
    pub(crate) poison: bool,
    pub(crate) unknown_users: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64, kind: Kind) -> Plan {
        Plan {
            seed,
            kind,
            window: Duration::from_secs(40 * 86_400),
            oldest: None,
            late: Late::Dead,
            jumps: false,
            faults: true,
            kills: true,
            poison: seed.is_multiple_of(3),
            unknown_users: true,
        }
    }

    /// Nothing goes wrong.
    pub(crate) fn calm(&mut self) {
        (self.faults, self.kills, self.jumps, self.poison) = (false, false, false, false);
    }
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pending,
    Delivered,
    Dead(&'static str),
}

struct Row {
    delivery: Queued,
    fate: Fate,
    /// What it comes to.
    bytes: u64,
    user: Option<String>,
}

pub(crate) struct World {
    plan: Plan,
    random: u64,
    now: Timestamp,
    account: Arc<Account>,
    config: EndpointConfig,
    queue: Queue,
    rows: BTreeMap<DeliveryId, Row>,
    pub(crate) fake: Fake,
    map: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(plan: Plan) -> World {
        let map = tempfile::tempdir().unwrap();
        let path = map.path().join("customers.csv");
        let mut text = "user,customer\nuser0,cus_0\nuser1,cus_1\nuser2,cus_2\nuser3,cus_3\n".to_owned();
        if !plan.unknown_users {
            text += "user4,cus_4\nuser5,cus_5\n";
        }
        if plan.poison {
            text = text.replace("cus_2", "cus_poison");
        }
        std::fs::write(&path, text).unwrap();
        let settings = Settings {
            meters: vec![Meter::new("relayed", "billable_bytes".parse().unwrap())],
            ..Settings::default()
        };
        let product = (kind(plan.kind.name()).unwrap().make)(&settings).unwrap();
        let mut terms = product.terms().clone();
        terms.window = turnhook_dispatcher::provider::Window::For(plan.window);
        terms.oldest = plan.oldest;
        terms.batch = terms.batch.min(20);
        if plan.kind == Kind::Ahead {
            terms.future = Some(Duration::ZERO);
        }
        let account = Arc::new(Account {
            kind: plan.kind.name(),
            product,
            terms,
            settings,
            customer: CustomerFrom::User,
            customers: Some(Arc::new(Customers::read(&path).unwrap())),
            unknown: Unknown::Hold,
            anonymous: Anonymous::Skip,
            late: plan.late,
            wait: Duration::from_millis(500),
        });
        let mut config = EndpointConfig::new("e", "https://example.com/".parse().unwrap(), Vec::new());
        config.account = Some(Arc::clone(&account));
        // What is given up for its age is another matter.
        config.retry.give_up_after = Duration::from_secs(3000 * 86_400);
        config.retry.max = Duration::from_secs(30);
        let window = u64::try_from(plan.window.as_millis()).unwrap();
        let mut world = World {
            random: plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1,
            now: Timestamp(START),
            queue: queue(&config, &account, Timestamp(START)),
            fake: Fake::new(plan.kind, window),
            account,
            config,
            rows: BTreeMap::new(),
            plan,
            map,
        };
        for n in 0..i64::from(EACH) * i64::from(SESSIONS) {
            world.commit(n);
        }
        world
    }

    /// The next event of one of the sessions, as it comes out of the store.
    fn commit(&mut self, n: i64) {
        let (session, sequence) = ((n % i64::from(SESSIONS)) as u8, (n / i64::from(SESSIONS)) as u32);
        let event_type = match sequence {
            0 => EventType::Start,
            last if last == EACH - 1 => EventType::End,
            _ => EventType::Usage,
        };
        let mut event = samples::event(event_type, Case::Exact, self.now);
        event.session_id = SessionId([session; 16]);
        event.sequence = sequence;
        let user = (session < SESSIONS - 1 || sequence % 2 == 0).then(|| format!("user{session}"));
        event.user = user.clone().map(|user| user.into_bytes().into());
        let bytes = if sequence == 0 { 0 } else { 1000 + n as u64 };
        event.usage_delta.billable_bytes = bytes;
        let delivery = Queued {
            delivery: Delivery {
                id: DeliveryId(n + 1),
                endpoint: EndpointId(1),
                event_id: format!("evt_{n:026}").parse().unwrap(),
                session_id: event.session_id,
                sequence,
                event_type,
                body: body(&event),
                timestamp: self.now,
                sent: None,
                attempts: 0,
                first_attempt_at: None,
                next_attempt_at: self.now,
            },
            ordering_key: event.session_id,
            began_at: None,
            due_at: None,
        };
        let row = Row {
            delivery,
            fate: Fate::Pending,
            bytes,
            user,
        };
        self.rows.insert(DeliveryId(n + 1), row);
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random().is_multiple_of(of)
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(u64::try_from(time.as_millis()).unwrap());
    }

    /// The process is killed, and another starts.
    fn kill(&mut self) {
        self.queue = queue(&self.config, &self.account, self.now);
    }

    /// Reads what the queue wants, and sends a batch if one may be sent now.
    pub(crate) fn step(&mut self) {
        while let Some(wanted) = self.queue.wanted(self.now) {
            let page = self.page(&wanted);
            self.queue.answer(Some(page), self.now);
        }
        let claimed = self.queue.claim_batch(self.now);
        if !claimed.is_empty() {
            self.send(claimed);
        }
    }

    fn page(&self, wanted: &Wanted) -> Page {
        let pending = self.rows.values().filter(|row| row.fate == Fate::Pending);
        let pending = pending.map(|row| row.delivery.clone());
        let (deliveries, limit): (Vec<_>, _) = match wanted {
            Wanted::Oldest { after, limit } => {
                (pending.filter(|d| d.id > *after).take(*limit).collect(), *limit)
            }
            Wanted::Newest { limit } => (Vec::new(), *limit),
            Wanted::Rows(ids) => (pending.filter(|d| ids.contains(&d.id)).collect(), usize::MAX),
        };
        Page {
            end: deliveries.len() < limit,
            deliveries,
        }
    }

    /// As the endpoint does it; it may be killed between any two steps.
    fn send(&mut self, claimed: Vec<Queued>) {
        let head = claimed[0].clone();
        let account = Arc::clone(&self.account);
        let mut batch = Batch::new(&account, claimed, self.now);
        if self.dies() {
            return;
        }
        for (id, items) in batch.to_write() {
            self.row(id).sent = Some(items);
        }
        if self.dies() {
            return;
        }
        while let Some(request) = batch.next_request() {
            let fault = if self.plan.faults && self.chance(2) {
                FAULTS[(self.random() % FAULTS.len() as u64) as usize]
            } else {
                Fault::None
            };
            let heard = self.asked(&request, fault);
            self.pass(Duration::from_millis(20));
            if self.dies() {
                return;
            }
            let signal = batch.heard(heard, self.now);
            self.queue.signal(&head, &signal, self.now);
        }
        for concluded in batch.finish() {
            self.conclude(concluded);
        }
        self.queue.batch_done(head.id, self.now);
    }

    fn asked(&mut self, request: &turnhook_dispatcher::provider::Request, fault: Fault) -> Heard {
        if self.plan.kind == Kind::Ahead && self.now.0 < START + 3_000 {
            // As a product does that compares with its own clock.
            return Heard::Answer {
                status: 425,
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
                read: Whole::Yes,
            };
        }
        self.fake.answer(request, fault, self.now.0)
    }

    fn dies(&mut self) -> bool {
        let dies = self.plan.kills && self.chance(25);
        if dies {
            self.kill();
        }
        dies
    }

    fn row(&mut self, id: DeliveryId) -> &mut Queued {
        &mut self.rows.get_mut(&id).unwrap().delivery
    }

    fn conclude(&mut self, concluded: turnhook_dispatcher::provider::batch::Concluded) {
        let mut delivery = concluded.delivery;
        if concluded.sent == Sent::Forget {
            delivery.sent = None;
        }
        let (id, first) = (delivery.id, delivery.began_at);
        let random = self.random();
        let (next, dead) = self.queue.conclude(
            delivery,
            concluded.conclusion,
            concluded.uncertain,
            self.now,
            random,
        );
        let row = self.rows.get_mut(&id).unwrap();
        match concluded.sent {
            Sent::Keep => {}
            Sent::Forget => row.delivery.sent = None,
            Sent::Put(items) => row.delivery.sent = Some(items),
        }
        match next {
            Next::Done => row.fate = Fate::Delivered,
            Next::Dead(why) => {
                assert!(why == "gave_up" || dead.is_some_and(|dead| dead.as_str() == why));
                row.fate = Fate::Dead(why);
            }
            Next::Retry(at) => {
                row.delivery.attempts += 1;
                row.delivery.began_at = first;
                row.delivery.due_at = Some(at);
            }
            Next::Waits => {}
            other => panic!("{other:?}"),
        }
    }

    /// So many steps in which anything may go wrong.
    pub(crate) fn trouble(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            let wait = self.random() % 4_000;
            self.pass(Duration::from_millis(wait));
            if self.plan.jumps && self.chance(15) {
                self.pass(Duration::from_secs(1_000));
            }
            if self.plan.kills && self.chance(40) {
                self.kill();
            }
            if self.plan.unknown_users && self.chance(60) {
                self.put_in_the_map("user4,cus_4");
            }
        }
    }

    fn put_in_the_map(&mut self, line: &str) {
        let path = self.map.path().join("customers.csv");
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.contains(line) {
            std::fs::write(&path, format!("{text}{line}\n")).unwrap();
            assert_eq!(self.account.customers.as_ref().unwrap().reload(), Ok(true));
            self.queue.customers_changed(self.now);
        }
    }

    pub(crate) fn put_all_in_the_map(&mut self) {
        self.put_in_the_map("user4,cus_4");
        self.put_in_the_map("user5,cus_5");
    }

    /// Nothing goes wrong any more, and user5 stays unknown.
    pub(crate) fn recover(&mut self) {
        self.put_in_the_map("user4,cus_4");
        self.recover_without_map();
    }

    pub(crate) fn recover_without_map(&mut self) {
        (self.plan.faults, self.plan.kills) = (false, false);
        for _ in 0..300 {
            self.step();
            self.pass(Duration::from_secs(1));
        }
    }

    /// The product's sum is the ledger's, or the difference is listed.
    pub(crate) fn check(&self) {
        let seed = self.plan.seed;
        let (mut ledger, mut listed) = (0u64, 0u64);
        for row in self.rows.values() {
            let id = &row.delivery.event_id.to_string();
            let (times, bytes) = self.fake.counted.get(id).copied().unwrap_or_default();
            let is_billed = row.bytes > 0 && row.user.is_some();
            assert!(times <= 1, "seed {seed}: {id} was counted {times} times");
            if times == 1 {
                assert_eq!(bytes, row.bytes, "seed {seed}: {id}");
            }
            ledger += if is_billed { row.bytes } else { 0 };
            match &row.fate {
                Fate::Delivered => {
                    assert_eq!(times, u32::from(is_billed), "seed {seed}: {id} is done");
                }
                Fate::Dead("uncertain") => {
                    assert!(is_billed, "seed {seed}: {id}");
                    listed += if times == 0 { row.bytes } else { 0 };
                }
                fate => {
                    assert_eq!(times, 0, "seed {seed}: {id} is {fate:?}, and counted");
                    listed += if is_billed { row.bytes } else { 0 };
                }
            }
            if row.fate == Fate::Pending {
                assert!(self.waits_for_user5(row), "seed {seed}: {id} hangs");
            }
        }
        let counted: u64 = self.fake.counted.values().map(|(_, bytes)| bytes).sum();
        assert_eq!(counted + listed, ledger, "seed {seed}");
    }

    /// It is of the one who never comes into the map, or behind such a one in its session's order, where one is sent at a time.
    fn waits_for_user5(&self, row: &Row) -> bool {
        let is_behind = |other: &Row| {
            other.fate == Fate::Pending
                && other.user.as_deref() == Some("user5")
                && other.delivery.session_id == row.delivery.session_id
                && other.delivery.sequence < row.delivery.sequence
        };
        row.user.as_deref() == Some("user5")
            || (self.account.terms.batch == 1 && self.rows.values().any(is_behind))
    }

    pub(crate) fn fates(&self, of: impl Fn(&Fate) -> bool) -> usize {
        self.rows.values().filter(|row| of(&row.fate)).count()
    }

    pub(crate) fn events(&self) -> usize {
        // What comes to nothing is done whatever the product says.
        self.rows.len() - self.fates(|fate| *fate == Fate::Delivered)
    }

    /// Events that the product never takes.
    pub(crate) fn poisoned(&self) -> usize {
        let poisoned = |row: &&Row| row.user.as_deref() == Some("user2") && row.bytes > 0;
        self.rows.values().filter(poisoned).count()
    }

    pub(crate) fn standstill(&self) -> Option<Standstill> {
        self.queue.standstill(self.now)
    }

    pub(crate) fn waiting_for_customers(&self) -> usize {
        self.queue.waiting_for_customers()
    }

    pub(crate) fn counted_by_session(&self) -> Vec<Vec<u32>> {
        let mut sessions: BTreeMap<SessionId, Vec<u32>> = BTreeMap::new();
        for id in &self.fake.order {
            let found = self
                .rows
                .values()
                .find(|row| row.delivery.event_id.to_string() == **id);
            let delivery = &found.unwrap().delivery;
            sessions
                .entry(delivery.session_id)
                .or_default()
                .push(delivery.sequence);
        }
        sessions.into_values().collect()
    }
}

fn queue(config: &EndpointConfig, account: &Account, now: Timestamp) -> Queue {
    let mut queue = Queue::new(config, Vec::new(), Bounds::default(), now);
    queue.batch(account.terms.batch, account.wait);
    queue
}
