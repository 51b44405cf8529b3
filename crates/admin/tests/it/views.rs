//! Every view with hostile names, every route of the document, and what is done.

use serde_json::Value;

use crate::support::{Answer, Fixture, T0, event, hostile, session};

pub(crate) fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("%{b:02X}")).collect()
}

/// All tags, attributes and text of a page, read by a parser that knows no mercy: whatever is not of the template is a fault.
pub(crate) fn check_html(path: &str, answer: &Answer) {
    let html = &answer.body;
    assert!(html.starts_with("<!doctype html>"), "{path}: {html}");
    let mut open = Vec::new();
    let mut rest = html.split_once("<html").unwrap().1;
    while let Some((text, after)) = rest.split_once('<') {
        let is_bad = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{200b}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!text.contains(is_bad), "{path}: {text:?}");
        let (tag, after) = after.split_once('>').unwrap();
        rest = after;
        let name: String = tag
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '/')
            .collect();
        match name.strip_prefix('/') {
            Some("html") => break,
            Some(closed) => assert_eq!(open.pop().as_deref(), Some(closed), "{path}"),
            None => {
                assert!(
                    !matches!(name.as_str(), "img" | "iframe" | "object" | "style"),
                    "{path}: <{tag}>"
                );
                assert!(
                    name != "script" || tag == "script src=\"/page.js\" defer",
                    "{path}: <{tag}>"
                );
                // Without the values, which are quoted.
                let attributes: String = tag.split('"').step_by(2).collect();
                for word in [" on", " style="] {
                    assert!(!attributes.contains(word), "{path}: <{tag}>");
                }
                assert!(!tag.contains("javascript:"), "{path}: <{tag}>");
                let is_void = matches!(name.as_str(), "meta" | "link" | "input") || tag.ends_with('/');
                if !is_void {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "{path}: {open:?}");
}

fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/",
        "/sessions",
        "/sessions?open=false&limit=2",
        "/deliveries",
        "/deliveries?state=dead&limit=3",
        "/confirm/deliveries/replay?state=dead",
        "/confirm/deliveries/discard?endpoint=billing",
        "/usage?from=2026-11-01&to=2026-11-30&tz=Asia/Kolkata",
        "/endpoints",
        "/endpoints/billing",
        "/sources",
        "/sources/eu-1",
        "/nodes",
        "/audit",
        "/blocks",
        "/search?q=%3Cscript%3E",
        "/search?q=203.0.113.7",
    ]
    .map(str::to_owned)
    .to_vec();
    for (n, user) in (1..).zip(hostile()) {
        paths.push(format!("/users/{}?from=2026-11-01&to=2026-11-30", encoded(&user)));
        paths.push(format!("/sessions/{}", session(n)));
        paths.push(format!("/events/{}", event(n, &user, true).id));
        paths.push(format!("/sessions?user={}", encoded(&user)));
        paths.push(format!(
            "/deliveries?user={}&done={}",
            encoded(&user),
            encoded(&user)
        ));
        let user = encoded(&user);
        paths.push(format!("/blocks?user={user}"));
        paths.push(format!("/confirm/block?user={user}&reason={user}"));
        paths.push(format!("/confirm/unblock?user={user}&realm={user}"));
        paths.push(format!("/confirm/end?session={}&reason={user}", session(n)));
    }
    paths
}

#[tokio::test]
async fn every_view_with_hostile_names() {
    let f = Fixture::new().await;
    for path in paths() {
        for who in ["vera", "otto"] {
            let answer = f.ask(who, "GET", &path, "").await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            check_html(&path, &answer);
            let acts = answer.body.contains("method=\"post\"") || answer.body.contains("/confirm/");
            assert!(!acts || who == "otto" || path.starts_with("/confirm"), "{path}");
        }
    }
    for path in [
        "/nothing",
        "/sessions/x",
        "/events/evt_0",
        "/endpoints/<b>",
        "/usage?tz=x",
        "/sessions?since=x",
        "/users/%FF?from=z",
    ] {
        let answer = f.get(&path.replace('<', "%3C").replace('>', "%3E")).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        check_html(path, &answer);
    }
}

#[tokio::test]
async fn a_bill_is_explained_in_words() {
    let f = Fixture::new().await;
    let exact = f.get(&format!("/sessions/{}", session(1))).await.body;
    assert!(
        exact.contains("Exact, to the byte")
            && exact.contains("9,001")
            && exact.contains("what was relayed: the bytes that peers were sent"),
        "{exact}"
    );
    let lower = f.get(&format!("/sessions/{}", session(2))).await.body;
    assert!(
        lower.contains("At least this much") && lower.contains("Corrected by"),
        "{lower}"
    );
    assert!(
        lower.contains(&format!("/sessions/{}\"", session(3))),
        "the chain forward: {lower}"
    );
    let later = f.get(&format!("/sessions/{}", session(3))).await.body;
    assert!(later.contains("Corrects") && later.contains(&format!("/sessions/{}\"", session(2))));
    assert!(
        later.contains("18,005 billable bytes, and one session"),
        "the sum of both: {later}"
    );
    // When its allocation was open, from a fifth of its time to four fifths, and the gap in it.
    assert!(
        lower.contains("<title>2026-11-23 06:00:59 to 2026-11-23 06:00:59</title>")
            && lower.contains(r#"<rect x="144.0""#)
            && lower.contains(r#"<rect class="gap" x="288.0""#)
            && lower.contains("gap: reconnect")
            && lower.contains("1,234"),
        "{lower}"
    );
    assert!(!exact.contains("class=\"gap\""), "{exact}");
    let user = encoded(&hostile()[4]);
    let period = "from=2026-11-01&to=2026-11-30";
    let page = f.get(&format!("/users/{user}?{period}")).await.body;
    assert!(
        page.contains("9,005 billable bytes, by ends and by deltas alike."),
        "{page}"
    );
    assert!(
        page.contains("2 deliveries of that time are dead letters")
            && page.contains("/deliveries?state=dead"),
        "{page}"
    );
    let overview = f.get("/").await.body;
    assert!(overview.contains("billing did not get 3 events"), "{overview}");
    // The same as JSON, by day of a zone, and by hour.
    let json: Value = serde_json::from_str(
        &f.get(&format!("/api/v1/users/{user}/usage?{period}&tz=Asia/Kolkata"))
            .await
            .body,
    )
    .unwrap();
    assert_eq!(json["by_deltas"]["usage"]["billable_bytes"], 9005);
    assert_eq!(json["by_ends"]["usage"]["billable_bytes"], 9005);
    assert_eq!(json["items"].as_array().unwrap().len(), 1, "{json}");
    let by_hour: Value = serde_json::from_str(
        &f.get(&format!("/api/v1/usage?{period}&by=hour,source"))
            .await
            .body,
    )
    .unwrap();
    let row = &by_hour["items"][0];
    assert_eq!(
        (&row["source"], &row["sessions_ended"]),
        (&"eu-1".into(), &6.into()),
        "{by_hour}"
    );
    assert_eq!(row["usage"]["billable_bytes"], (9001..=9006).sum::<u64>());
    assert!(T0 > 0 && row["hour"].as_str().unwrap().ends_with('Z'), "{row}");
    let csv = f
        .get(&format!("/api/v1/usage?{period}&by=user&format=csv"))
        .await
        .body;
    assert_eq!(csv.lines().count(), 7, "{csv}");
}

#[tokio::test]
async fn a_search_finds_whatever_it_is() {
    let f = Fixture::new().await;
    let user = &hostile()[0];
    for (q, at) in [
        (session(1).to_string(), format!("/sessions/{}", session(1))),
        (
            event(1, user, true).id.to_string(),
            format!("/events/{}", event(1, user, true).id),
        ),
        (
            "<script>alert(1)</script>".to_owned(),
            "/users/%3Cscript%3Ealert%281%29%3C%2Fscript%3E".to_owned(),
        ),
        (
            "1795413634:<script>alert(1)</script>".to_owned(),
            "/users/%3Cscript%3Ealert%281%29%3C%2Fscript%3E".to_owned(),
        ),
    ] {
        let answer = f.get(&format!("/search?q={}", encoded(q.as_bytes()))).await;
        assert_eq!((answer.status, answer.location), (303, at), "{q}");
    }
    let found = f.get("/search?q=203.0.113.7:4000").await.body;
    assert!(found.contains("newest sessions"), "{found}");
}

#[tokio::test]
async fn all_that_match_are_brought_back_and_it_is_on_record() {
    let f = Fixture::new().await;
    let confirm = f
        .get("/confirm/deliveries/replay?state=dead&endpoint=billing")
        .await
        .body;
    assert!(
        confirm.contains("12 deliveries match") && confirm.contains("Replay 12 deliveries"),
        "{confirm}"
    );
    for (who, path) in [
        ("vera", "/deliveries/replay"),
        ("vera", "/api/v1/deliveries/replay"),
        ("vera", "/endpoints/billing/pause"),
    ] {
        assert_eq!(f.ask(who, "POST", path, "").await.status, 403, "{path}");
    }
    let one = format!("state=dead&session={}", session(1));
    let answer = f
        .ask(
            "otto",
            "POST",
            "/api/v1/deliveries/discard",
            &format!("{one}&dry_run=1"),
        )
        .await;
    assert_eq!(answer.body, r#"{"count":2}"#);
    let answer = f.ask("otto", "POST", "/api/v1/deliveries/discard", &one).await;
    assert_eq!(answer.body, r#"{"count":2}"#);
    let answer = f
        .ask(
            "otto",
            "POST",
            "/deliveries/replay",
            "state=dead&endpoint=billing&reason=disks",
        )
        .await;
    assert_eq!(answer.status, 303);
    assert!(
        f.get(&answer.location)
            .await
            .body
            .contains("Done: 10 deliveries, replay."),
        "{}",
        answer.location
    );
    let answer = f
        .ask("otto", "POST", "/endpoints/billing/pause", "reason=%3Cb%3E")
        .await;
    assert_eq!(
        (answer.status, answer.location.as_str()),
        (303, "/endpoints/billing")
    );
    assert!(f.store.outbox().endpoints().await.unwrap()[0].paused().is_some());
    assert_eq!(
        f.ask("otto", "POST", "/endpoints/nobody/pause", "").await.status,
        404
    );
    let record: Value = serde_json::from_str(&f.get("/api/v1/audit").await.body).unwrap();
    let told: Vec<_> = record["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            format!(
                "{} {} {} {} {}",
                e["who"], e["action"], e["target"], e["count"], e["detail"]
            )
        })
        .collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert_eq!(told[0], r#""otto" "pause" "billing" 1 "<b>""#);
    assert_eq!(
        told[1],
        r#""otto" "replay" "state dead, endpoint billing" 10 "disks""#
    );
    check_html("/audit", &f.get("/audit").await);
}

/// What a view lists, its links give to programs, as JSON and as CSV.
#[tokio::test]
async fn lists_come_as_csv_at_the_same_paths() {
    let f = Fixture::new().await;
    for path in [
        "/sessions",
        "/deliveries",
        "/usage",
        "/endpoints",
        "/sources",
        "/audit",
    ] {
        let view = f.get(path).await.body;
        let api = format!("/api/v1{path}?format=csv");
        assert!(view.contains(&format!("href=\"{api}\"")), "{path}: {view}");
        let rows = f.get(&api).await.body;
        let json: Value = serde_json::from_str(&f.get(&format!("/api/v1{path}")).await.body).unwrap();
        let count = json["items"].as_array().unwrap().len();
        let mut reader = csv::Reader::from_reader(rows.as_bytes());
        assert_eq!(
            reader.records().map(Result::unwrap).count(),
            count,
            "{path}: {rows}"
        );
        assert!(count > 0 || rows.is_empty(), "{path}: {rows}");
    }
    let endpoints = f.get("/api/v1/endpoints?format=csv").await.body;
    assert!(
        endpoints.contains("dead_letters") && endpoints.contains("billing"),
        "{endpoints}"
    );
    // There is but one node here, and it is in no table.
    assert_eq!(f.get("/api/v1/nodes?format=csv").await.body, "");
}

/// The document and the routes are one: each is asked, and what is not in it is not there.
#[tokio::test]
async fn the_document_tells_of_every_route() {
    let f = Fixture::new().await;
    let document: Value = serde_json::from_str(&f.get("/api/v1/openapi.json").await.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let of_path: Vec<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(of_path.len(), path.matches('{').count(), "{path}");
            let real = path
                .replace("sessions/{id}", &format!("sessions/{}", session(1)))
                .replace("events/{id}", &format!("events/{}", event(1, b"", true).id))
                .replace("{user}", "%FF")
                .replace("{name}", "billing");
            let answer = f.ask("otto", &method.to_uppercase(), &real, "").await;
            assert_eq!(answer.status, 200, "{method} {real}: {}", answer.body);
            let json: Value = serde_json::from_str(&answer.body).unwrap();
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            for needed in schema["required"].as_array().into_iter().flatten() {
                assert!(json.get(needed.as_str().unwrap()).is_some(), "{path}: {json}");
            }
            asked += 1;
        }
    }
    assert!(asked >= 16, "{asked}");
    let elsewhere = f.get("/api/v1/elsewhere").await;
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.body.contains("openapi.json"));
    // Pages of a list, and a cursor that is none.
    let first: Value = serde_json::from_str(&f.get("/api/v1/deliveries?limit=5").await.body).unwrap();
    let next = first["next"].as_str().unwrap();
    let second: Value = serde_json::from_str(
        &f.get(&format!("/api/v1/deliveries?limit=50&after={next}"))
            .await
            .body,
    )
    .unwrap();
    assert_eq!(second["items"].as_array().unwrap().len(), 7);
    assert_eq!(f.get("/api/v1/deliveries?after=x").await.status, 400);
}
