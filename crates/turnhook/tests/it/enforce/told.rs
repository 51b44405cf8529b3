//! Events of users: whoever is blocked, by whatever way, is told of once and in order, over kills and takeovers.

use std::collections::BTreeSet;

use super::api::send;
use crate::harness::{
    billing::{Billing, Webhook},
    nodes::Shared,
    page::Page,
    program::{Program, WHILE},
};

const BLOCKED: &str = "user.blocked: balance";
const UNBLOCKED: &str = "user.unblocked: unblocked";
const EXPIRED: &str = "user.unblocked: expired";

#[track_caller]
fn block(program: &Program, user: &str, more: &[&str]) {
    let all = [&["block", user, "--reason", "balance"], more].concat();
    program.ask(&all);
}

/// In their order by time, and under ids of their own.
#[track_caller]
fn are_in_order(webhooks: &[Webhook]) {
    let times: Vec<&str> = webhooks
        .iter()
        .map(|webhook| webhook.body["timestamp"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    let ids: BTreeSet<&str> = webhooks.iter().map(|webhook| webhook.id.as_str()).collect();
    assert_eq!(ids.len(), webhooks.len());
}

#[test]
fn each_way_is_told_once_and_in_order_over_kills() {
    let (billing, elsewhere) = (Billing::start(), Billing::start());
    let mut program = Program::new("");
    let (page, table) = Page::new(&program);
    program.configure(&format!(
        "{}{}{table}[enforce]\nobey = [\"billing\"]\n",
        billing.endpoint_of_all("billing", ""),
        elsewhere.endpoint_of_all("elsewhere", "realms = [\"*.com\"]\n"),
    ));
    // An answer to such an event blocks nobody: it would go on for ever.
    billing.answer("zoe", r#"{"block": {"reason": "again"}}"#);
    // While nobody is there to tell of it.
    let odd = format!("<b>&{}", "ü".repeat(250));
    program.start();
    block(&program, "zoe", &["--realm", "example.org"]);
    assert_eq!(billing.told_of("zoe", 1), [BLOCKED]);
    program.kill();
    block(&program, &odd, &["--realm", "example.com", "--for", "1h"]);
    program.ask(&["unblock", &odd, "--realm", "example.com"]);
    block(&program, "short", &["--for", "1s"]);
    block(&program, "ann", &[]);
    program.start();
    assert_eq!(billing.told_of(&odd, 2), [BLOCKED, UNBLOCKED]);
    assert_eq!(elsewhere.told_of(&odd, 2), [BLOCKED, UNBLOCKED]);
    assert_eq!(billing.told_of("short", 2), [BLOCKED, EXPIRED]);
    let short = billing.of_user("short");
    are_in_order(&short);
    assert_eq!(short[0].data()["until"], short[1].data()["until"]);
    assert!(short[1].data()["by"].is_null(), "{:?}", short[1].body);

    // As fast as an operator can, by the API, and killed in between.
    for round in 0..3 {
        let form = "for=1h&reason=balance&realm=example.org";
        let done = send(&page, &page.operator, "PUT", "/blocks/bob", form);
        assert_eq!(done.status, 200, "{done:?}");
        if round == 1 {
            program.kill();
            program.start();
        }
        let done = send(
            &page,
            &page.operator,
            "DELETE",
            "/blocks/bob?realm=example.org",
            "",
        );
        assert_eq!(done.status, 200, "{done:?}");
    }
    program.kill();
    program.start();
    let bob = billing.told_of("bob", 6);
    assert_eq!(bob, [BLOCKED, UNBLOCKED].repeat(3));
    let bob = billing.of_user("bob");
    are_in_order(&bob);
    assert_eq!(
        (&bob[0].data()["by"], &bob[0].data()["realm"]),
        (&"otto".into(), &"example.org".into())
    );
    assert_eq!(bob[0].data()["all_realms"], false);
    // By the page.
    let done = page.post("/users/dan/block", "reason=balance&for=1h");
    assert!(done.status < 400, "{done:?}");
    assert_eq!(billing.told_of("dan", 1), [BLOCKED]);

    // As session events are: listed, shown, sent again to the byte.
    let listed = program.objects(&["deliveries", "list", "--user", &odd, "--endpoint", "billing"]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(
        (&listed[0]["type"], &listed[0]["session_id"], &listed[0]["user"]),
        (
            &"user.unblocked".into(),
            &serde_json::Value::Null,
            &odd.as_str().into()
        )
    );
    let told = page
        .get("/api/v1/deliveries?type=user.blocked&endpoint=billing")
        .json();
    let users: Vec<&str> = told["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["user"].as_str())
        .collect();
    assert!(users.contains(&odd.as_str()) && users.contains(&"bob"), "{told}");
    let id = billing.of_user(&odd)[0].id.clone();
    let shown = page.get(&format!("/events/{id}"));
    assert_eq!(shown.status, 200);
    assert!(
        shown.body.contains("user.blocked") && !shown.body.contains("<b>&amp;ü"),
        "{}",
        shown.body
    );
    assert!(program.ask(&["deliveries", "show", &id]).contains("user.blocked"));
    let before = program.deliveries("delivered").len();
    program.ask(&[
        "replay",
        "--id",
        &id,
        "--endpoint",
        "billing",
        "--state",
        "delivered",
        "--wait",
    ]);
    assert_eq!(program.deliveries("delivered").len(), before);

    std::thread::sleep(WHILE);
    assert_eq!(billing.told_of("zoe", 1), [BLOCKED], "its answer was obeyed");
    assert_eq!(
        billing.told_of("short", 2).len() + billing.told_of("bob", 6).len(),
        8
    );
    // In every realm: whoever hears of some realms alone hears of it where he has been, and she was nowhere.
    assert_eq!(billing.told_of("ann", 1), [BLOCKED]);
    assert!(
        elsewhere
            .webhooks()
            .iter()
            .all(|webhook| webhook.data()["user"] == odd)
    );
    program.stop();
}

#[test]
fn of_several_nodes_one_tells_whichever_are_killed() {
    let billing = Billing::start();
    let shared = Shared::start("2s", billing.endpoint_of_all("billing", ""));
    let mut nodes = shared.nodes(2);
    let users: Vec<String> = (0..12).map(|n| format!("user-{n}")).collect();
    for (n, user) in users.iter().enumerate() {
        block(
            &nodes[n % 2].program,
            user,
            &["--for", if n < 6 { "1h" } else { "3s" }],
        );
        match n {
            3 => nodes[0].kill(),
            5 => nodes[0].launch(),
            8 => nodes[1].kill(),
            10 => nodes[1].launch(),
            _ => {}
        }
    }
    for user in &users[..6] {
        nodes[0].program.ask(&["unblock", user]);
    }
    for (n, user) in users.iter().enumerate() {
        let end = if n < 6 { UNBLOCKED } else { EXPIRED };
        assert_eq!(billing.told_of(user, 2), [BLOCKED, end]);
        are_in_order(&billing.of_user(user));
    }
    std::thread::sleep(WHILE);
    assert_eq!(billing.webhooks().len(), 2 * users.len());
    assert_eq!(shared.sql("SELECT count(*) FROM event").trim(), "24");
    for node in &mut nodes {
        node.stop();
    }
}
