//! What an account makes of one event.

use std::time::Duration;

use turnhook_dispatcher::{
    body::{body, rfc3339},
    provider::{
        Meter, Settings, Window,
        account::{Account, Anonymous, CustomerFrom, Dead, Late, Prepared, Unknown},
        kind,
        sent::{Sent, State},
    },
    samples::{self, Case},
};
use turnhook_reducer::{
    event::{EventType, SessionId},
    time::Timestamp,
};

pub(super) const NOW: Timestamp = Timestamp(1_795_327_257_624);
pub(super) const EVT: &str = "evt_00000000000000000000000001";
const DAY: u64 = 86_400_000;

pub(super) fn account(name: &'static str, meter: &str) -> Account {
    let settings = Settings {
        meters: vec![Meter::new(meter, "billable_bytes".parse().unwrap())],
        ..Settings::default()
    };
    let product = (kind(name).unwrap().make)(&settings).unwrap();
    Account {
        kind: name,
        terms: product.terms().clone(),
        product,
        settings,
        customer: CustomerFrom::User,
        customers: None,
        unknown: Unknown::Pass,
        anonymous: Anonymous::Dead,
        late: Late::Dead,
        wait: Duration::ZERO,
    }
}

fn usage(case: Case) -> bytes::Bytes {
    body(&samples::event(EventType::Usage, case, NOW))
}

fn sent(prepared: Prepared) -> Sent {
    match prepared {
        Prepared::Send(sent) => sent,
        other => panic!("{other:?}"),
    }
}

#[test]
fn p10_what_may_have_been_counted_is_sent_to_the_byte_whatever_is_configured_now() {
    let first = sent(account("openmeter", "relayed").prepare(EVT, &usage(Case::Exact), None, true, NOW));
    let stored = Sent::from_bytes(&first.to_bytes()).unwrap();
    assert_eq!(stored, first);
    let mut changed = account("openmeter", "renamed");
    changed.customer = CustomerFrom::Realm;
    let again = sent(changed.prepare(EVT, &usage(Case::Exact), Some(stored), false, NOW.plus(1000)));
    assert_eq!(again, first);
    // Where nothing can have been counted, what is configured now holds.
    let anew = sent(changed.prepare(EVT, &usage(Case::Exact), None, false, NOW.plus(1000)));
    assert_eq!(
        (&*anew.items[0].item.meter, &*anew.items[0].item.customer),
        ("renamed", "example.org")
    );
}

#[test]
fn p2_a_replay_after_the_window_is_uncertain_also_of_what_was_delivered() {
    let mut account = account("openmeter", "relayed");
    account.terms.window = Window::For(Duration::from_millis(DAY));
    let mut before = sent(account.prepare(EVT, &usage(Case::Exact), None, true, NOW));
    before.items[0].state = State::Taken;
    let at = |after: u64| {
        account.prepare(
            EVT,
            &usage(Case::Exact),
            Some(before.clone()),
            true,
            NOW.plus(after),
        )
    };
    assert_eq!(sent(at(DAY - 1)).open().count(), 1, "a replay sends all of it");
    assert!(matches!(at(DAY), Prepared::Dead(Dead::Uncertain(_))));
    account.terms.window = Window::Never;
    let again = account.prepare(EVT, &usage(Case::Exact), Some(before), false, NOW);
    assert!(matches!(again, Prepared::Dead(Dead::Uncertain(_))));
}

#[test]
fn p4_what_is_late_has_the_time_that_is_configured() {
    let mut account = account("openmeter", "relayed");
    let oldest = account.terms.oldest.insert(Duration::from_millis(DAY));
    let now = NOW.plus(2 * u64::try_from(oldest.as_millis()).unwrap());
    let of = |account: &Account| account.prepare(EVT, &usage(Case::Exact), None, true, now);
    assert!(matches!(of(&account), Prepared::Dead(Dead::TooLate(_))));
    account.late = Late::Send;
    assert_eq!(sent(of(&account)).items[0].item.at, NOW.0);
    account.late = Late::Now;
    let item = sent(of(&account)).items.remove(0).item;
    assert_eq!(item.at, now.0);
    assert!(!item.text.contains(&rfc3339(NOW)) && item.text.contains(&rfc3339(now)));
}

#[test]
fn p11_what_is_ahead_of_their_clock_is_not_sent_before_its_time() {
    let stripe = account("stripe", "relayed");
    let future = u64::try_from(stripe.terms.future.unwrap().as_millis()).unwrap();
    let at = |ahead: u64| {
        let now = Timestamp(NOW.0 - future - ahead);
        stripe.prepare(EVT, &usage(Case::Exact), None, true, now)
    };
    assert_eq!(at(1500), Prepared::Early(1500));
    assert_eq!(sent(at(0)).open().count(), 1);
}

#[test]
fn p9_deliveries_of_one_customer_wait_for_each_other_where_the_product_wants_that() {
    let (a, b) = (SessionId([1; 16]), SessionId([2; 16]));
    let (stripe, openmeter) = (account("stripe", "relayed"), account("openmeter", "relayed"));
    let of = |account: &Account, session| account.ordering_key(EVT, &usage(Case::Exact), session);
    assert_eq!(of(&stripe, a), of(&stripe, b));
    assert_eq!((of(&openmeter, a), of(&openmeter, b)), (a, b));
    // Nobody's waits for nobody.
    assert_eq!(stripe.ordering_key(EVT, &usage(Case::NoUser), a), a);
}

#[test]
fn who_is_billed_where_the_event_names_nobody() {
    let mut account = account("openmeter", "relayed");
    let of = |account: &Account| account.prepare(EVT, &usage(Case::NoUser), None, true, NOW);
    assert_eq!(of(&account), Prepared::Dead(Dead::Anonymous));
    account.anonymous = Anonymous::Skip;
    assert_eq!(of(&account), Prepared::Nothing);
    account.anonymous = Anonymous::As("house".into());
    assert_eq!(sent(of(&account)).items[0].item.customer, "house");
    // Of nothing nobody asks whose it is.
    account.anonymous = Anonymous::Dead;
    let start = body(&samples::event(EventType::Start, Case::NoUser, NOW));
    assert_eq!(account.prepare(EVT, &start, None, true, NOW), Prepared::Nothing);
    let whole = Account {
        settings: Settings::default(),
        product: (kind("cloudevents").unwrap().make)(&Settings::default()).unwrap(),
        ..account
    };
    let terms = whole.product.terms().clone();
    let whole = Account { terms, ..whole };
    assert_eq!(sent(of(&whole)).items[0].item.customer, "");
}

#[test]
fn the_names_of_types_are_those_of_the_configuration() {
    for name in [
        "cloudevents",
        "openmeter",
        "stripe",
        "lago",
        "orb",
        "metronome",
        "polar",
        "template",
    ] {
        assert!(kind(name).is_some(), "{name}");
    }
    assert!(kind("webhook").is_none());
}
