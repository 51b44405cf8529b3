//! The queue against a store that lags behind it: whatever happens in whatever order, a session's events
//! are sent in sequence, none twice, and in the end all of them.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// New events of these sessions are committed, and offered.
    Commit(Vec<u8>),
    /// A finished one is made pending again, and offered.
    Replay(u8),
    /// Claims so many.
    Claim(u8),
    /// A request comes back with this status.
    Finish(u8, u16),
    /// What is wanted is asked for.
    Ask,
    /// The store answers, or cannot.
    Answer(bool),
    /// The store writes outcomes.
    Write(u8),
    /// Time passes.
    Pass(u32),
    Pause,
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![6 => Just(200u16), 2 => Just(500), 2 => Just(0), 1 => Just(400), 1 => Just(422), 1 => Just(503)];
    prop_oneof![
        4 => proptest::collection::vec(0u8..12, 1..12).prop_map(Step::Commit),
        1 => any::<u8>().prop_map(Step::Replay),
        4 => (1u8..6).prop_map(Step::Claim),
        6 => (any::<u8>(), status).prop_map(|(which, status)| Step::Finish(which, status)),
        4 => Just(Step::Ask),
        4 => prop::bool::weighted(0.9).prop_map(Step::Answer),
        2 => (1u8..10).prop_map(Step::Write),
        3 => prop_oneof![0u32..3_000, 0u32..100_000].prop_map(Step::Pass),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
    ]
}

/// A row of the outbox.
struct Row {
    session: u8,
    sequence: u32,
    /// As the store has it.
    pending: bool,
    attempts: u32,
    first: Option<Timestamp>,
    due: Option<Timestamp>,
    /// The truth, which the store learns later.
    over: bool,
    /// Whether it was over once: from then on it is a replay.
    was_over: bool,
    flying: bool,
}

struct World {
    queue: Queue,
    bounds: Bounds,
    now: Timestamp,
    rows: Vec<Row>,
    next: HashMap<u8, u32>,
    flying: Vec<Queued>,
    /// Outcomes that are not written yet.
    outcomes: VecDeque<(i64, u32, Option<Timestamp>, Next, Mark)>,
    /// Outcomes that are written, which the queue has yet to hear.
    written: Vec<Mark>,
    /// What was asked for, and what was found, where that was looked up at once.
    asked: Option<(Wanted, Option<Page>)>,
}

impl World {
    fn new() -> World {
        let bounds = Bounds {
            bodies: 12,
            bytes: 1 << 20,
            stubs: 6,
            page: 4,
        };
        World {
            queue: Queue::new(&config(), Vec::new(), bounds, T0),
            bounds,
            now: T0,
            rows: Vec::new(),
            next: HashMap::new(),
            flying: Vec::new(),
            outcomes: VecDeque::new(),
            written: Vec::new(),
            asked: None,
        }
    }

    /// As it stands in the store.
    fn row(&self, id: i64) -> Queued {
        let row = &self.rows[id as usize];
        let mut queued = Queued {
            began_at: row.first,
            due_at: row.due,
            ..delivery(id, u128::from(row.session), row.sequence)
        };
        queued.attempts = row.attempts;
        queued
    }

    fn commit(&mut self, sessions: Vec<u8>) {
        let from = self.rows.len();
        for session in sessions {
            let next = self.next.entry(session).or_default();
            let sequence = std::mem::replace(next, *next + 1);
            self.rows.push(Row {
                session,
                sequence,
                pending: true,
                attempts: 0,
                first: None,
                due: None,
                over: false,
                was_over: false,
                flying: false,
            });
        }
        let new: Vec<_> = (from..self.rows.len()).map(|id| self.row(id as i64)).collect();
        self.queue.offer(new, self.now);
    }

    fn replay(&mut self, which: u8) {
        let done: Vec<usize> = (0..self.rows.len())
            .filter(|id| !self.rows[*id].pending)
            .collect();
        let Some(&id) = done.get(usize::from(which) % done.len().max(1)) else {
            return;
        };
        let row = &mut self.rows[id];
        (row.pending, row.over, row.attempts, row.first, row.due) = (true, false, 0, None, None);
        let again = self.row(id as i64);
        self.queue.offer([again], self.now);
    }

    fn claim(&mut self) -> bool {
        let Some(d) = self.queue.claim(self.now) else {
            return false;
        };
        let row = &self.rows[d.id.0 as usize];
        assert!(!row.over && !row.flying, "sent again");
        let (session, sequence, replay) = (row.session, row.sequence, row.was_over);
        for other in self.rows.iter().filter(|other| other.session == session) {
            assert!(!other.flying, "two of one session");
            assert!(
                replay || other.sequence >= sequence || other.was_over,
                "out of order"
            );
        }
        self.rows[d.id.0 as usize].flying = true;
        self.flying.push(d);
        assert!(self.flying.len() <= 4);
        true
    }

    fn finish(&mut self, which: usize, status: u16) {
        if self.flying.is_empty() {
            return;
        }
        let d = self.flying.remove(which % self.flying.len());
        let (id, attempts, first) = (d.id.0, d.attempts + 1, d.began_at);
        let status = StatusCode::from_u16(status).ok();
        let random = self.now.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let next = self.queue.finish(d, status, None, self.now, random);
        let row = &mut self.rows[id as usize];
        row.flying = false;
        row.over = matches!(next, Next::Done | Next::Dead(_));
        row.was_over |= row.over;
        let mark = self.queue.mark().unwrap();
        self.outcomes.push_back((id, attempts, first, next, mark));
    }

    /// The queue hears of what was written before: others may act on that earlier.
    fn write(&mut self, count: usize) {
        self.queue.written(&std::mem::take(&mut self.written));
        for (id, attempts, first, next, mark) in self.outcomes.drain(..count.min(self.outcomes.len())) {
            let row = &mut self.rows[id as usize];
            (row.attempts, row.first) = (attempts, first);
            match next {
                Next::Retry(at) => row.due = Some(at),
                Next::Paused | Next::Waits => {}
                Next::Done | Next::Dead(_) => row.pending = false,
            }
            self.written.push(mark);
        }
    }

    fn ask(&mut self) {
        if self.asked.is_some() {
            return;
        }
        self.asked = self.queue.wanted(self.now).map(|wanted| {
            let early = self.now.0.is_multiple_of(2).then(|| self.page(&wanted));
            (wanted, early)
        });
    }

    fn answer(&mut self, readable: bool) {
        let Some((wanted, early)) = self.asked.take() else {
            return;
        };
        let page = early.unwrap_or_else(|| self.page(&wanted));
        self.queue.answer(readable.then_some(page), self.now);
    }

    fn page(&self, wanted: &Wanted) -> Page {
        let pending = |id: &i64| self.rows[*id as usize].pending;
        let all = 0..self.rows.len() as i64;
        let (ids, limit): (Vec<i64>, usize) = match wanted {
            Wanted::Oldest { after, limit } => (
                all.filter(|id| *id > after.0)
                    .filter(pending)
                    .take(*limit)
                    .collect(),
                *limit,
            ),
            Wanted::Newest { limit } => {
                let head = |id: &i64| {
                    let row = &self.rows[*id as usize];
                    row.due.is_none_or(|due| due <= self.now)
                        && !self
                            .rows
                            .iter()
                            .any(|o| o.session == row.session && o.pending && o.sequence < row.sequence)
                };
                (
                    all.rev().filter(pending).filter(head).take(*limit).collect(),
                    *limit,
                )
            }
            Wanted::Rows(ids) => (ids.iter().map(|id| id.0).filter(pending).collect(), usize::MAX),
        };
        Page {
            end: ids.len() < limit,
            deliveries: ids.into_iter().map(|id| self.row(id)).collect(),
        }
    }

    fn check_memory(&self) {
        // Bodies and stubs within their bounds, each but for a page, and requests under way.
        let most = self.bounds.bodies + self.bounds.stubs + 2 * self.bounds.page + 4;
        assert!(
            self.queue.in_memory() <= most,
            "{} in memory",
            self.queue.in_memory()
        );
        assert_eq!(self.queue.in_flight(), self.flying.len());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Commit(sessions) => self.commit(sessions),
            Step::Replay(which) => self.replay(which),
            Step::Claim(count) => (0..count).for_each(|_| {
                self.claim();
            }),
            Step::Finish(which, status) => self.finish(usize::from(which), status),
            Step::Ask => self.ask(),
            Step::Answer(readable) => self.answer(readable),
            Step::Write(count) => self.write(usize::from(count)),
            Step::Pass(ms) => self.now = self.now.plus(u64::from(ms)),
            Step::Pause => self.queue.pause("by command", self.now),
            Step::Resume => self.queue.resume(self.now),
        }
        self.check_memory();
    }

    /// The endpoint is well from now on: everything is delivered, and time is only spent where the queue says so.
    fn drain(&mut self) {
        self.queue.resume(self.now);
        for _ in 0..20 * self.rows.len() + 100 {
            self.write(usize::MAX);
            self.ask();
            self.answer(true);
            while self.claim() {}
            while !self.flying.is_empty() {
                self.finish(0, 200);
            }
            self.check_memory();
            if self.rows.iter().all(|row| row.over) {
                return;
            }
            self.ask();
            if self.asked.is_none() {
                let wake = self.queue.next_wake(self.now).expect("stuck");
                self.now = self.now.max(wake);
            }
        }
        let left: Vec<_> = (0..self.rows.len()).filter(|id| !self.rows[*id].over).collect();
        panic!("never sent: {left:?}; {:#?}", self.queue);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn in_order_once_and_all(steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.drain();
    }
}
