//! A batch on its way: which requests its items make, what is sent again in halves, and what follows for each delivery.
//! Pure: answers and times are handed in.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use turnhook_reducer::{
    outbox::{self, DeliveryId},
    time::Timestamp,
};

use super::{
    account::{Account, Dead, Prepared},
    product::{Answer, Decoded, Item, ItemVerdict, Request},
    sent::{Sent, State},
    signal::Signal,
};
use crate::{queued::Queued, verdict::millis};

/// How long what came too early waits, in milliseconds.
const EARLY: u64 = 1_000;

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Heard {
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// Its headers.
        headers: HeaderMap,
        /// Its body, as far as it was read.
        body: Bytes,
        /// How much of it was read.
        read: Whole,
    },
    /// None, for this reason.
    Nothing {
        /// For people; no secrets.
        error: String,
        /// Whether the request may have been taken all the same.
        perhaps: bool,
    },
}

/// How much of an answer's body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// All.
    Yes,
    /// It goes on beyond 64 KiB.
    TooLong,
    /// The connection broke, or time ran out.
    CutShort,
}

/// What follows for a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// It is done: `delivered`, `duplicate`, `accepted`, or `nothing` to bill.
    Done(&'static str),
    /// It is a dead letter.
    Dead(Dead),
    /// It is tried again by the retry schedule, and not before so many milliseconds have passed.
    Again(Option<u64>),
    /// It is tried again after so many milliseconds, which is no failure.
    Soon(u64),
    /// It is tried again when the endpoint takes things.
    Held,
    /// It waits until the map knows its customer.
    Waits,
}

/// A delivery that comes back from a batch.
#[derive(Clone, Debug)]
pub struct Concluded {
    /// The delivery.
    pub delivery: Queued,
    /// What follows.
    pub conclusion: Conclusion,
    /// What is known now of what was sent.
    pub sent: outbox::Sent,
    /// Whether it may have been taken without our knowing.
    pub uncertain: bool,
    /// Of its last request.
    pub status: Option<u16>,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// The beginning of the answer.
    pub answer: Bytes,
}

#[derive(Debug)]
struct Parcel {
    delivery: Queued,
    sent: Sent,
    /// Whether it may have been taken before this batch.
    before: bool,
    /// Of each item that was open.
    verdicts: Vec<Option<ItemVerdict>>,
    status: Option<u16>,
    error: Option<String>,
    answer: Bytes,
}

/// An item: the parcel's place, and its own in there.
type Place = (usize, usize);

/// See the module.
#[derive(Debug)]
pub struct Batch {
    account: Arc<Account>,
    parcels: Vec<Parcel>,
    /// Those that needed no request.
    settled: Vec<Concluded>,
    todo: VecDeque<Vec<Place>>,
    under_way: Vec<Place>,
    /// Those under way.
    items: Vec<Item>,
}

impl Batch {
    /// Of deliveries that were claimed together, in their order.
    #[must_use]
    pub fn new(account: &Arc<Account>, deliveries: Vec<Queued>, now: Timestamp) -> Batch {
        let mut batch = Batch {
            account: Arc::clone(account),
            parcels: Vec::new(),
            settled: Vec::new(),
            todo: VecDeque::new(),
            under_way: Vec::new(),
            items: Vec::new(),
        };
        for delivery in deliveries {
            batch.add(delivery, now);
        }
        batch.divide();
        batch
    }

    fn add(&mut self, delivery: Queued, now: Timestamp) {
        let before = delivery.sent.as_deref().map(Sent::from_bytes);
        let settle = match before {
            Some(None) => Conclusion::Dead(Dead::Uncertain(
                "what was sent of it cannot be read any more".to_owned(),
            )),
            before => {
                let before = before.flatten();
                let was = before.is_some();
                let anew = delivery.attempts == 0;
                let account = Arc::clone(&self.account);
                match account.prepare(&delivery.event_id.to_string(), &delivery.body, before, anew, now) {
                    Prepared::Send(sent) => {
                        let verdicts = vec![None; sent.items.len()];
                        self.parcels.push(Parcel {
                            delivery,
                            sent,
                            before: was,
                            verdicts,
                            status: None,
                            error: None,
                            answer: Bytes::new(),
                        });
                        return;
                    }
                    Prepared::Nothing => Conclusion::Done("nothing"),
                    Prepared::Dead(why) => Conclusion::Dead(why),
                    Prepared::Waits => Conclusion::Waits,
                    Prepared::Early(ms) => Conclusion::Soon(ms),
                }
            }
        };
        let error = match &settle {
            Conclusion::Dead(why) => Some(why.words().to_owned()),
            _ => None,
        };
        self.settled.push(Concluded {
            delivery,
            conclusion: settle,
            sent: outbox::Sent::Keep,
            uncertain: false,
            status: None,
            error,
            answer: Bytes::new(),
        });
    }

    /// Into requests: each within the bounds, and with no id twice.
    fn divide(&mut self) {
        let terms = &self.account.terms;
        let (mut group, mut bytes, mut ids) = (Vec::new(), 0, HashSet::new());
        for (p, parcel) in self.parcels.iter().enumerate() {
            for (i, one) in parcel.sent.items.iter().enumerate() {
                if one.state != State::Open {
                    continue;
                }
                // A comma, or whatever stands between two.
                let size = one.item.text.len() + 2;
                let full = group.len() >= terms.batch.max(1) || bytes + size > terms.bytes;
                if !group.is_empty() && (full || ids.contains(&one.item.id)) {
                    self.todo.push_back(std::mem::take(&mut group));
                    bytes = 0;
                    ids.clear();
                }
                ids.insert(&one.item.id);
                bytes += size;
                group.push((p, i));
            }
        }
        if !group.is_empty() {
            self.todo.push_back(group);
        }
    }

    /// What has to be written down before the first request.
    #[must_use]
    pub fn to_write(&self) -> Vec<(DeliveryId, Bytes)> {
        let new = self.parcels.iter().filter(|parcel| !parcel.before);
        new.map(|parcel| (parcel.delivery.id, parcel.sent.to_bytes()))
            .collect()
    }

    /// It could not be written down: nothing is sent.
    pub fn not_written(&mut self) {
        self.todo.clear();
        for parcel in &mut self.parcels {
            parcel.verdicts.fill(Some(ItemVerdict::TooEarly));
        }
    }

    /// The next request. What comes of it is to be handed in before the one after it is asked for.
    pub fn next_request(&mut self) -> Option<Request> {
        self.under_way = self.todo.pop_front()?;
        self.items = self.items();
        let attempts = self.under_way.iter().filter_map(|(p, _)| self.parcels.get(*p));
        let attempt = attempts
            .map(|parcel| parcel.delivery.attempts.saturating_add(1))
            .max();
        Some(self.account.product.request(&self.items, attempt.unwrap_or(1)))
    }

    fn items(&self) -> Vec<Item> {
        let item = |(p, i): &Place| Some(self.parcels.get(*p)?.sent.items.get(*i)?.item.clone());
        self.under_way.iter().filter_map(item).collect()
    }

    /// What came of the request that was asked for last.
    pub fn heard(&mut self, heard: Heard, now: Timestamp) -> Signal {
        let items = std::mem::take(&mut self.items);
        let (status, answer, decoded) = match &heard {
            Heard::Nothing { perhaps, .. } => {
                let verdict = if *perhaps {
                    ItemVerdict::Uncertain(None)
                } else {
                    ItemVerdict::Retry(None)
                };
                (None, Bytes::new(), Decoded::all(verdict, &items))
            }
            Heard::Answer {
                status,
                headers,
                body,
                read,
            } => {
                let answer = Answer {
                    status: *status,
                    headers,
                    body,
                    at: now,
                };
                let decoded = match read {
                    Whole::CutShort => Decoded::all(ItemVerdict::Uncertain(None), &items),
                    Whole::TooLong if items.len() > 1 && !(200..300).contains(status) => {
                        Decoded::Halve("its answer is longer than is read".to_owned())
                    }
                    _ => self.account.product.decode(&answer, &items),
                };
                (Some(*status), body.slice(..body.len().min(1024)), decoded)
            }
        };
        let verdicts = match decoded {
            Decoded::Halve(_) if items.len() > 1 => {
                let back = self.under_way.split_off(items.len() / 2);
                self.todo.push_front(back);
                self.todo.push_front(std::mem::take(&mut self.under_way));
                return Signal::Alive;
            }
            Decoded::Halve(why) => vec![ItemVerdict::Rejected(why)],
            Decoded::Each(verdicts) => verdicts,
        };
        // One that its product forgot to speak of may have been taken.
        let mut verdicts = verdicts
            .into_iter()
            .chain(std::iter::repeat(ItemVerdict::Uncertain(None)));
        let mut signal = Signal::Alive;
        let mut at_once = Vec::new();
        let count = items.len();
        for (p, i) in std::mem::take(&mut self.under_way) {
            let Some(verdict) = verdicts.next() else { break };
            if matches!(verdict, ItemVerdict::Retry(None) | ItemVerdict::Uncertain(None)) {
                at_once.push((p, i));
            }
            let words = words(&verdict, status, &heard);
            signal.worsen(&verdict, status, &words);
            let Some(parcel) = self.parcels.get_mut(p) else {
                continue;
            };
            parcel.status = status;
            if !matches!(
                verdict,
                ItemVerdict::Delivered | ItemVerdict::Duplicate | ItemVerdict::Accepted
            ) {
                parcel.error = Some(words);
                parcel.answer = answer.clone();
            }
            if let Some(place) = parcel.verdicts.get_mut(i) {
                *place = Some(verdict);
            }
        }
        // Without those that were taken or refused, the rest goes again at once, as long as that makes fewer of them.
        if signal == Signal::Alive && !at_once.is_empty() && at_once.len() < count {
            self.todo.push_front(at_once);
        }
        if signal != Signal::Alive {
            self.leave_the_rest(&signal);
        }
        signal
    }

    /// The endpoint is in trouble: what was not sent waits with the rest.
    fn leave_the_rest(&mut self, signal: &Signal) {
        for (p, i) in std::mem::take(&mut self.todo).into_iter().flatten() {
            if let Some(parcel) = self.parcels.get_mut(p)
                && let Some(place) = parcel.verdicts.get_mut(i)
            {
                *place = Some(match signal {
                    Signal::Held(why) => ItemVerdict::Held(why.clone()),
                    _ => ItemVerdict::Retry(None),
                });
                if let Signal::Failed { error, .. } = signal {
                    parcel.error.get_or_insert_with(|| error.clone());
                }
            }
        }
    }

    /// What follows for each delivery.
    #[must_use]
    pub fn finish(self) -> Vec<Concluded> {
        let mut concluded = self.settled;
        concluded.extend(self.parcels.into_iter().map(Parcel::conclude));
        concluded
    }
}

impl Parcel {
    fn conclude(mut self) -> Concluded {
        let mut how = "delivered";
        let (mut again, mut soon, mut held, mut uncertain) = (None::<Option<u64>>, false, false, false);
        let mut changed = false;
        for (one, verdict) in self.sent.items.iter_mut().zip(self.verdicts) {
            let longer = |again: Option<Option<u64>>, after: Option<Duration>| {
                Some(again.flatten().max(after.map(millis)))
            };
            let state = match verdict {
                Some(ItemVerdict::Delivered) => State::Taken,
                Some(ItemVerdict::Duplicate) => {
                    how = "duplicate";
                    State::Taken
                }
                Some(ItemVerdict::Accepted) => {
                    how = "accepted";
                    State::Taken
                }
                Some(ItemVerdict::Rejected(why)) => State::Refused(why),
                Some(ItemVerdict::Retry(after)) => {
                    again = longer(again, after);
                    continue;
                }
                Some(ItemVerdict::Uncertain(after)) => {
                    again = longer(again, after);
                    uncertain = true;
                    continue;
                }
                Some(ItemVerdict::Busy) => {
                    again = longer(again, None);
                    continue;
                }
                Some(ItemVerdict::TooEarly) => {
                    soon = true;
                    continue;
                }
                Some(ItemVerdict::Held(_)) => {
                    held = true;
                    continue;
                }
                None => {
                    // Closed before, or never asked for.
                    soon |= one.state == State::Open;
                    continue;
                }
            };
            one.state = state;
            changed = true;
        }
        let refused = self.sent.items.iter().find_map(|one| match &one.state {
            State::Refused(why) => Some(why.clone()),
            _ => None,
        });
        let conclusion = if held {
            Conclusion::Held
        } else if let Some(after) = again {
            Conclusion::Again(after)
        } else if soon {
            Conclusion::Soon(EARLY)
        } else if let Some(why) = refused {
            Conclusion::Dead(Dead::Rejected(why))
        } else {
            Conclusion::Done(how)
        };
        let is_over = matches!(conclusion, Conclusion::Dead(_) | Conclusion::Done(_));
        let taken = self.sent.items.iter().any(|one| one.state == State::Taken);
        let perhaps = self.before || taken || uncertain;
        let sent = if !perhaps {
            outbox::Sent::Forget
        } else if changed && !is_over {
            let bytes = self.sent.to_bytes();
            self.delivery.sent = Some(bytes.clone());
            outbox::Sent::Put(bytes)
        } else {
            // What is over is not sent again.
            if !self.before && !is_over {
                self.delivery.sent = Some(self.sent.to_bytes());
            }
            outbox::Sent::Keep
        };
        Concluded {
            delivery: self.delivery,
            error: self.error.filter(|_| !matches!(conclusion, Conclusion::Done(_))),
            conclusion,
            sent,
            uncertain: uncertain || self.before,
            status: self.status,
            answer: self.answer,
        }
    }
}

fn words(verdict: &ItemVerdict, status: Option<u16>, heard: &Heard) -> String {
    match (verdict, heard) {
        (ItemVerdict::Rejected(why) | ItemVerdict::Held(why), _) => why.clone(),
        (_, Heard::Nothing { error, .. }) => error.clone(),
        (ItemVerdict::Busy, _) => "another call for its customer was under way".to_owned(),
        (ItemVerdict::TooEarly, _) => "its time has not come by their clock".to_owned(),
        (
            _,
            Heard::Answer {
                read: Whole::CutShort,
                ..
            },
        ) => "its answer was cut short".to_owned(),
        _ => format!("answered {}", status.unwrap_or_default()),
    }
}
