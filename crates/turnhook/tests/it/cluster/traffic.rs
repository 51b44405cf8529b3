//! Real calls that come and go, while something happens to the nodes.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::harness::{billing::Billing, coturn::Coturn, turn::TurnClient};

/// Who called, once each.
#[derive(Default)]
pub(super) struct Traffic {
    users: Mutex<Vec<String>>,
    next: AtomicU64,
    stop: AtomicBool,
}

/// Ends the calls also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    /// Calls from several threads while `during` runs. Gives back the users: one call each, and all have hung up.
    pub(super) fn during<T>(coturn: &Coturn, during: impl FnOnce(&Traffic) -> T) -> (T, Vec<String>) {
        let traffic = Traffic::default();
        let done = std::thread::scope(|scope| {
            let _stop = Stop(&traffic.stop);
            for thread in 0..3 {
                let traffic = &traffic;
                scope.spawn(move || {
                    while !traffic.stop.load(Ordering::Relaxed) {
                        if thread == 0 {
                            traffic.long(coturn)
                        } else {
                            traffic.short(coturn)
                        }
                    }
                });
            }
            during(&traffic)
        });
        (done, traffic.users.into_inner().unwrap())
    }

    fn caller(&self, coturn: &Coturn, kind: &str) -> (u64, TurnClient) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let user = format!("{kind}-{number}");
        self.users.lock().unwrap().push(user.clone());
        (number, TurnClient::tcp(coturn, &user).call(coturn))
    }

    /// One that is over before coturn reports anything but its totals.
    fn short(&self, coturn: &Coturn) {
        let (number, mut client) = self.caller(coturn, "short");
        for _ in 0..number % 4 + 1 {
            client.relay(20, 200);
            std::thread::sleep(Duration::from_millis(40));
        }
        if number.is_multiple_of(2) {
            assert_eq!(client.refresh(0), 0);
        }
        drop(client);
        std::thread::sleep(Duration::from_millis(60));
    }

    /// One that lives for seconds, while coturn reports what it relays.
    fn long(&self, coturn: &Coturn) {
        let (number, mut client) = self.caller(coturn, "long");
        for _ in 0..number % 3 * 15 + 15 {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            client.relay(512, 100);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A call whose end is told: all that was heard before it is committed.
    #[track_caller]
    pub(super) fn marker(&self, billing: &Billing, coturn: &Coturn) {
        let (number, mut client) = self.caller(coturn, "marker");
        client.relay(10, 100);
        drop(client);
        billing.ended(&format!("marker-{number}"), 1);
    }
}
