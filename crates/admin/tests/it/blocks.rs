//! Who is blocked, as the page shows and changes it.

use serde_json::Value;
use turnhook_reducer::time::Timestamp;

use crate::{
    support::{Fixture, hostile, session},
    views::{check_html, encoded},
};

#[tokio::test]
async fn a_user_is_blocked_and_unblocked() {
    let f = Fixture::new().await;
    assert!(f.get("/blocks").await.body.contains("Nobody is."));
    for user in hostile() {
        let user = encoded(&user);
        let path = format!("/users/{user}");
        assert!(f.get(&path).await.body.contains("Block this user"), "{path}");
        let form = format!("for=1h&reason={user}&realm=");
        for (who, status) in [("vera", 403), ("otto", 303)] {
            let answer = f.ask(who, "POST", &format!("{path}/block"), &form).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
        }
        let page = f.get(&path).await;
        check_html(&path, &page);
        assert!(
            page.body.contains("Blocked in every realm until 20") && page.body.contains("by otto"),
            "{}",
            page.body
        );
        assert!(page.body.contains("Unblock in every realm"), "{}", page.body);
        let seen = f.ask("vera", "GET", &path, "").await.body;
        assert!(
            seen.contains("Blocked in every realm") && !seen.contains("/confirm/"),
            "{seen}"
        );
    }
    let all = hostile().len();
    let page = f.get("/blocks").await;
    check_html("/blocks", &page);
    assert_eq!(page.body.matches("/confirm/unblock?user=").count(), all);
    assert!(page.body.contains("&#60;script&#62;alert(1)"), "{}", page.body);
    assert!(
        !f.ask("vera", "GET", "/blocks", "")
            .await
            .body
            .contains("/confirm/"),
        "a viewer is offered what he may not do"
    );
    let first = f.get("/blocks?limit=4").await.body;
    assert_eq!(first.matches("/confirm/unblock?user=").count(), 4);
    assert!(first.contains("/blocks?limit=4&#38;after=4"), "{first}");
    let second = f.get("/blocks?limit=4&after=4").await.body;
    assert_eq!(second.matches("/confirm/unblock?user=").count(), all - 4);

    // In a realm alone is another block; each is ended as it was made.
    let user = encoded(&hostile()[4]);
    let realm = encoded(b"\xff.example");
    let unblock = format!("/users/{user}/unblock?realm={realm}");
    assert_eq!(f.ask("otto", "POST", &unblock, "").await.status, 404);
    let unblock = format!("/users/{user}/unblock");
    assert_eq!(f.ask("otto", "POST", &unblock, "reason=paid").await.status, 303);
    let held = f
        .store
        .admin()
        .blocks_of(&hostile()[4], Timestamp(1))
        .await
        .unwrap();
    assert!(held.is_empty(), "{held:?}");
    let audit: Value = serde_json::from_str(&f.get("/api/v1/audit").await.body).unwrap();
    let last = &audit["items"][0];
    assert_eq!(
        (&last["action"], &last["target"], &last["detail"]),
        (&"unblock".into(), &r"\xff\xfe\xc0".into(), &"paid".into())
    );
    assert_eq!(audit["items"].as_array().unwrap().len(), all + 1);
    check_html("/audit", &f.get("/audit").await);
}

#[tokio::test]
async fn what_cannot_be_blocked_or_ended_is_said() {
    let f = Fixture::new().await;
    for (path, form, words) in [
        ("/users/ann/block", "for=soon", "`for` is a time like"),
        ("/users/ann/block", "for=0s", "`for` is a time like"),
        ("/users/ann/unblock", "", "ann is not blocked there"),
    ] {
        let answer = f.ask("otto", "POST", path, form).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(answer.body.contains(words), "{path}: {}", answer.body);
    }
    for path in ["/confirm/block", "/confirm/unblock?realm=x", "/confirm/end"] {
        assert_eq!(f.get(path).await.status, 400, "{path}");
    }
    let ended = format!("/sessions/{}/end", session(1));
    let answer = f.ask("otto", "POST", &ended, "").await;
    assert!(
        answer.status == 400 && answer.body.contains("has ended already"),
        "{}",
        answer.body
    );
    assert_eq!(f.ask("vera", "POST", &ended, "").await.status, 403);
    let unknown = format!("/sessions/{}/end", session(77));
    assert_eq!(f.ask("otto", "POST", &unknown, "").await.status, 404);
    assert!(f.store.ledger().audit(None, 10).await.unwrap().is_empty());
}
