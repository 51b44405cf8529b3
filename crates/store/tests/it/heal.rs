//! What is to be set right by coturn's log waits for whoever leads the source: the same on both databases.

use turnhook_reducer::event::SessionId;
use turnhook_store::{HealRow, Mode};

use crate::support::{Backend, Fixture, on_both};

on_both!(what_is_asked_for_waits_and_is_asked_for_once);

async fn what_is_asked_for_waits_and_is_asked_for_once(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let row = |n: u8, data: &[u8]| HealRow {
        session: SessionId([n; 16]),
        source: f.source,
        data: data.to_vec(),
    };
    // By another process than the one that runs.
    let other = f.place.open(Mode::Shared).await.unwrap();
    let asked = other
        .admin()
        .ask_to_heal(vec![row(2, b"two"), row(1, b"one")])
        .await;
    assert_eq!(asked.unwrap(), 2);
    let again = other
        .admin()
        .ask_to_heal(vec![row(1, b"other"), row(3, b"\0\xff")])
        .await;
    assert_eq!(again.unwrap(), 1);
    let all = [row(1, b"one"), row(2, b"two"), row(3, b"\0\xff")];
    assert_eq!(f.store.admin().to_heal(10).await.unwrap(), all);
    assert_eq!(f.store.admin().to_heal(2).await.unwrap(), all[..2]);
    f.store.admin().healed(SessionId([2; 16])).await.unwrap();
    f.store.admin().healed(SessionId([2; 16])).await.unwrap();
    assert_eq!(
        other.admin().to_heal(10).await.unwrap(),
        [row(1, b"one"), row(3, b"\0\xff")]
    );
    other.close().await;
    f.store.close().await;
}
