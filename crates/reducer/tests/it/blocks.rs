//! Blocked users: whose allocations are to be ended, and what is told of those that were.

use std::sync::Arc;

use turnhook_reducer::{
    block::{Blocks, Order, ToEnd},
    event::CloseReason,
    rules::Rules,
    time::Timestamp,
};

use crate::world::{START, World};

const CONFIRM: u64 = 2_000;

fn blocks(users: &[(Option<&str>, &str)]) -> Arc<Blocks> {
    let mut blocks = Blocks::default();
    for (realm, user) in users {
        blocks.insert(realm.map(str::as_bytes), user.as_bytes(), "balance".into());
    }
    Arc::new(blocks)
}

fn block(w: &mut World, users: &[(Option<&str>, &str)]) -> Vec<ToEnd> {
    w.reducer.set_blocks(Timestamp(w.now), blocks(users));
    named(w)
}

fn named(w: &mut World) -> Vec<ToEnd> {
    w.reducer.look_on(usize::MAX);
    w.reducer.take_to_end()
}

/// On record, and said.
fn ending(w: &mut World, to_end: &ToEnd) -> bool {
    intended(w, to_end) && w.reducer.saying(to_end)
}

/// On record, and not said yet.
fn intended(w: &mut World, to_end: &ToEnd) -> bool {
    let may = w.reducer.ending(Timestamp(w.now), to_end, CONFIRM);
    w.advance();
    may
}

/// The reason and the end of each session.
fn reasons(w: &World) -> Vec<(CloseReason, u64, Option<String>)> {
    let ends = w.ends();
    let told = |e: &turnhook_reducer::event::SessionEvent| {
        let end = e.end.unwrap();
        let reason = e.block_reason.as_deref().map(str::to_owned);
        (end.reason, end.ended_at.0 - START, reason)
    };
    ends.iter().map(|e| told(e)).collect()
}

fn ids(to_end: &[ToEnd]) -> Vec<u64> {
    to_end.iter().map(|t| t.id.0).collect()
}

#[test]
fn a_blocks_users_open_allocations_are_named_and_nobody_elses() {
    let mut w = World::new(Rules::default());
    w.open("1800003600:ann", 1)
        .open("1800007200:ann", 2)
        .open("1800003600:bob", 3)
        .open("ann/eu", 4);
    w.open("1800003600:ann", 5).close("1800003600:ann", 5, 3, 300);
    w.open("1800003600:ann", 6).ask_deletion("1800003600:ann", 6);
    let named = block(&mut w, &[(None, "ann")]);
    assert_eq!(ids(&named), [1, 2]);
    let first = &named[0];
    assert_eq!(&*first.username, b"1800003600:ann");
    assert_eq!(&*first.realm, b"example.org");
    assert_eq!(
        first.client_address.as_deref(),
        Some(b"127.0.0.1:40000".as_slice())
    );
    assert_eq!(
        first.server_address.as_deref(),
        Some(b"127.0.0.1:3478".as_slice())
    );
    assert_eq!((first.order.clone(), &*first.reason), (Order::Block, "balance"));

    assert!(block(&mut w, &[(Some("example.com"), "ann")]).is_empty());
    assert_eq!(ids(&block(&mut w, &[(Some("example.org"), "ann")])), [1, 2]);
    // An expiry without a user is nobody's name.
    w.open("1800003600", 7);
    assert!(block(&mut w, &[(None, "1800003600"), (None, "")]).is_empty());
}

/// A client comes back at once, as long as its credential holds.
#[test]
fn what_a_blocked_user_opens_or_refreshes_is_named_again() {
    let mut w = World::new(Rules::default());
    assert!(block(&mut w, &[(None, "ann")]).is_empty());
    for id in 1..=10 {
        w.at(id as f64).open("ann", id).open("bob", 100 + id);
        assert_eq!(ids(&w.reducer.take_to_end()), [id]);
    }
    assert_eq!(w.reducer.stats().blocked_new, 10);
    w.at(20.0).refresh("ann", 3);
    assert_eq!(ids(&w.reducer.take_to_end()), [3]);
    // Traffic alone proves nobody.
    w.traffic("ann", 4, 1, 100).traffic("ann", 999, 1, 100);
    assert!(w.reducer.take_to_end().is_empty());
    block(&mut w, &[]);
    w.at(21.0).open("ann", 50).refresh("ann", 3);
    assert!(w.reducer.take_to_end().is_empty());
}

#[test]
fn what_was_ended_is_told_as_cancelled_and_why() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).at(5.0).traffic("ann", 1, 10, 1000);
    let named = block(&mut w, &[(None, "ann")]);
    assert!(ending(&mut w, &named[0]));
    w.at(5.01).close("ann", 1, 10, 1000);
    assert_eq!(w.reducer.take_ended(), [named[0].allocation]);
    w.at(30.0).advance();
    let end = w.end(0);
    let told = end.end.unwrap();
    assert_eq!(
        (told.reason, told.accuracy.as_str()),
        (CloseReason::Cancelled, "exact")
    );
    assert_eq!(end.block_reason.as_deref(), Some("balance"));
    assert_eq!(end.allocations[0].closed.unwrap().1, CloseReason::Cancelled);
    assert!(!ending(&mut w, &named[0]), "it is over");
}

/// Why is said in the end that comes after a crash, though nobody is blocked any more.
#[test]
fn why_a_session_was_cut_off_outlives_a_crash() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).at(5.0).traffic("ann", 1, 10, 1000);
    let named = block(&mut w, &[(None, "ann")]);
    assert!(ending(&mut w, &named[0]));
    w.at(5.01).close("ann", 1, 10, 1000);
    block(&mut w, &[]);
    w.restart();
    w.at(60.0).advance();
    let end = w.end(0);
    assert_eq!(end.end.unwrap().reason, CloseReason::Cancelled);
    assert_eq!(end.block_reason.as_deref(), Some("balance"));
}

/// Nobody said that it was to be ended; or it closed too late, or by its client's wish, or its end could not be asked for.
#[test]
fn what_closes_by_itself_is_not_called_cancelled() {
    let mut w = World::new(Rules::default());
    for (id, user) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        w.open(user, id).traffic(user, id, 10, 1000);
    }
    let named = block(&mut w, &[(None, "b"), (None, "c"), (None, "d")]);
    assert_eq!(ids(&named), [2, 3, 4]);
    assert!(named.iter().all(|to_end| ending(&mut w, to_end)));
    w.reducer.not_ending(&named[2]);
    w.ask_deletion("c", 3);
    w.at(1.0)
        .close("a", 1, 10, 1000)
        .close("c", 3, 10, 1000)
        .close("d", 4, 10, 1000);
    w.at(2.1).close("b", 2, 10, 1000);
    w.at(60.0).advance();
    assert!(w.reducer.take_ended().is_empty());
    assert_eq!(w.ends().len(), 4);
    for end in w.ends() {
        assert_eq!(
            (end.end.unwrap().reason, &end.block_reason),
            (CloseReason::Closed, &None)
        );
    }
}

/// coturn's numbers come back, and so do places in memory.
#[test]
fn the_next_life_of_a_number_is_not_ended_in_the_place_of_the_last() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).traffic("ann", 1, 10, 1000);
    let named = block(&mut w, &[(None, "ann")]);
    assert!(ending(&mut w, &named[0]));
    // coturn was started anew, and the number is bob's, and then ann's.
    w.at(0.5).close("ann", 1, 10, 1000);
    w.at(1.0).open("bob", 1);
    assert!(!ending(&mut w, &named[0]));
    w.close("bob", 1, 3, 0).at(1.5).open("ann", 1);
    assert!(!ending(&mut w, &named[0]));
    w.at(1.6).close("ann", 1, 3, 0).at(60.0).advance();
    let reasons: Vec<_> = w
        .ends()
        .iter()
        .map(|e| (e.user.clone(), e.end.unwrap().reason))
        .collect();
    assert!(
        reasons.contains(&(Some((*b"bob").into()), CloseReason::Closed)),
        "{reasons:?}"
    );
}

#[test]
fn whoever_is_unblocked_meanwhile_is_left_alone() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1);
    let named = block(&mut w, &[(None, "ann")]);
    block(&mut w, &[]);
    assert!(!ending(&mut w, &named[0]));
}

#[test]
fn a_session_can_be_ended_without_a_block() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1)
        .open("ann", 2)
        .open("bob", 3)
        .traffic("ann", 1, 10, 1000);
    let session = w.events[0].session_id;
    let reason: Arc<str> = "too loud".into();
    w.reducer.end_session(Timestamp(w.now), session, &reason);
    let to_end = named(&mut w);
    assert_eq!(ids(&to_end), [1, 2]);
    assert!(to_end.iter().all(|to_end| ending(&mut w, to_end)));
    w.close("ann", 1, 10, 1000)
        .close("ann", 2, 3, 0)
        .at(30.0)
        .advance()
        .open("ann", 4);
    assert!(w.reducer.take_to_end().is_empty());
    w.at(31.0).close("ann", 4, 3, 0).at(60.0).advance();
    let ends: Vec<_> = w
        .ends()
        .iter()
        .filter(|e| e.session_id == session)
        .map(|e| e.block_reason.clone())
        .collect();
    assert_eq!(ends, [Some("too loud".into())]);
    w.reducer.end_session(Timestamp(w.now), session, &reason);
    assert!(named(&mut w).is_empty());
}

/// Whoever asked for it may not live to hear of it: coturn's word comes to the next program, or to nobody.
#[test]
fn that_an_end_was_asked_for_outlives_whoever_asked() {
    let cancelled = |at| [(CloseReason::Cancelled, at, Some("balance".to_owned()))];
    // It is heard of after the restart, or never: then its lifetime runs out.
    for heard in [true, false] {
        let mut w = World::new(Rules::default());
        w.open("ann", 1).at(5.0).traffic("ann", 1, 10, 1000);
        let named = block(&mut w, &[(None, "ann")]);
        assert!(ending(&mut w, &named[0]));
        w.restart();
        w.at(6.0);
        if heard {
            w.close("ann", 1, 10, 1000);
        }
        w.at(700.0).advance().at(1400.0).advance();
        // Never less than was told: that it went on for a minute.
        let at = if heard { 6_000 } else { 60_000 };
        assert_eq!(reasons(&w), cancelled(at), "heard: {heard}");
    }
}

/// Where nobody asked, or nothing came of it, the end is whosever it is: also after a restart, and while its user is blocked.
#[test]
fn what_ends_by_itself_after_a_restart_is_not_called_cancelled() {
    let mut w = World::new(Rules::default());
    for (id, user) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")] {
        w.open(user, id).traffic(user, id, 10, 1000);
    }
    let all = ["a", "b", "c", "d", "e"].map(|user| (None, user));
    let named = block(&mut w, &all);
    // Nobody asks for the end of the first. The second hangs up before that of its own is asked for.
    assert!(named[1..].iter().all(|to_end| intended(&mut w, to_end)));
    w.at(0.1).close("b", 2, 10, 1000);
    assert!(!w.reducer.saying(&named[1]));
    assert!(named[2..].iter().all(|to_end| w.reducer.saying(to_end)));
    // That of the third cannot be asked for; the fourth and the fifth go on as if nothing had been said.
    w.reducer.not_ending(&named[2]);
    w.restart();
    w.at(0.2).close("a", 1, 10, 1000).close("c", 3, 10, 1000);
    w.at(3.0).refresh("d", 4).close("e", 5, 10, 1000);
    w.at(700.0).advance().at(1400.0).advance();
    let told = reasons(&w);
    assert_eq!(told.len(), 5, "{told:?}");
    for (reason, _, why) in &told {
        assert!(*reason != CloseReason::Cancelled && why.is_none(), "{told:?}");
    }
    assert_eq!(told[4].0, CloseReason::Expired, "{told:?}");
}
