//! Blocks by the JSON API of `[admin]`.

use super::{control, coturn, is_cut_off};
use crate::harness::{
    billing::{Billing, QUICK, statsdb},
    free_port,
    page::{Answer, Page},
    program::Program,
    turn::TurnClient,
};

pub(super) fn send(page: &Page, who: &str, method: &str, path: &str, form: &str) -> Answer {
    let head = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {who}\r\n\
         content-type: application/x-www-form-urlencoded\r\nsec-fetch-site: same-origin\r\ncontent-length: {}",
        form.len()
    );
    page.send(&head, form)
}

#[test]
fn operators_block_and_viewers_look() {
    let (billing, cli) = (Billing::start(), free_port());
    let mut program = Program::new("");
    let (page, table) = Page::new(&program);
    program.configure(&format!("{QUICK}{}{}{table}", billing.endpoint(), control(cli)));
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    program.line("allocations can be ended");
    let mut ann = TurnClient::tcp(&coturn, "ann/eu").call(&coturn);
    ann.relay(20, 200);
    billing.started("ann/eu");

    let refused = send(&page, &page.viewer, "PUT", "/blocks/ann%2Feu", "for=1h");
    assert_eq!(refused.status, 403, "{refused:?}");
    let wrong = send(&page, &page.operator, "PUT", "/blocks/ann%2Feu", "for=soon");
    assert_eq!(wrong.status, 400, "{wrong:?}");
    // A body of JSON says the same as a form, and what is neither blocks nobody.
    let json = r#"{"for": "1h", "reason": "as JSON"}"#;
    let told = send(&page, &page.operator, "PUT", "/blocks/bob", json).json();
    assert!(told["blocks"][0]["until"].is_string(), "{told}");
    assert_eq!(told["blocks"][0]["reason"], "as JSON");
    assert_eq!(
        send(&page, &page.operator, "DELETE", "/blocks/bob", "").status,
        200
    );
    let neither = send(&page, &page.operator, "PUT", "/blocks/bob", r#"{"for": 3600}"#);
    assert_eq!(neither.status, 400, "{neither:?}");
    let done = send(
        &page,
        &page.operator,
        "PUT",
        "/blocks/ann%2Feu",
        "for=1h&reason=no+balance&realm=example.org",
    );
    assert_eq!(done.status, 200, "{done:?}");
    is_cut_off(&billing.ended("ann/eu", 1)[0], "no balance", &coturn);

    // An issuer of credentials may ask with a viewer's token.
    let told = page.get_as(&page.token, "/api/v1/blocks/ann%2Feu").json();
    assert_eq!(
        (&told["blocked"], &told["blocks"][0]["by"]),
        (&true.into(), &"otto".into()),
        "{told}"
    );
    for path in ["/api/v1/blocks?format=csv", "/api/v1/blocks/ann%2Feu?format=csv"] {
        let csv = page.get(path);
        assert_eq!(
            csv.header("content-type"),
            Some("text/csv; charset=utf-8"),
            "{csv:?}"
        );
        let lines: Vec<&str> = csv.body.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].contains("reason") && lines[1].contains("ann/eu"),
            "{csv:?}"
        );
    }
    assert_eq!(page.get("/api/v1/blocks/bob?format=csv").body, "");
    let view = page.get("/blocks?user=ann%2Feu").body;
    assert!(
        view.contains("href=\"/api/v1/blocks/ann%2Feu?format=csv\""),
        "{view}"
    );
    assert_eq!(page.get("/api/v1/blocks/bob").json()["blocked"], false);
    assert_eq!(
        page.get("/api/v1/blocks").json()["blocks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // As it was made: in its realm.
    assert_eq!(
        send(&page, &page.operator, "DELETE", "/blocks/ann%2Feu", "").status,
        404
    );
    assert_eq!(
        send(
            &page,
            &page.operator,
            "DELETE",
            "/blocks/ann%2Feu?realm=example.org",
            ""
        )
        .status,
        200
    );
    assert_eq!(page.get("/api/v1/blocks").json()["blocked"], false);

    let mut dan = TurnClient::tcp(&coturn, "dan").call(&coturn);
    dan.relay(20, 200);
    billing.started("dan");
    let path = format!("/sessions/{}/end", billing.sessions_of("dan")[0].id);
    assert_eq!(send(&page, &page.viewer, "POST", &path, "").status, 403);
    assert_eq!(
        send(&page, &page.operator, "POST", &path, "reason=enough").status,
        200
    );
    is_cut_off(&billing.ended("dan", 1)[0], "enough", &coturn);
    assert_eq!(send(&page, &page.operator, "POST", &path, "").status, 400);
    program.stop();
}
