//! An answer that blocks, and one that has no say.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use super::{control, coturn, is_cut_off};
use crate::{
    harness::{
        billing::{Billing, QUICK, statsdb},
        eventually, free_port,
        postgres::Postgres,
        program::{Program, endpoint},
        turn::TurnClient,
    },
    stopping::{hears, on_postgres},
};

#[test]
fn an_endpoint_that_is_obeyed_blocks_by_its_answer_and_no_other_does() {
    let (billing, other, cli) = (Billing::start(), Billing::start(), free_port());
    let mut program = Program::new(&format!(
        "{QUICK}{}{}{}[enforce]\nobey = [\"billing\"]\n",
        billing.endpoint_of_all("billing", ""),
        other.endpoint_named("other"),
        control(cli),
    ));
    program.start();
    let coturn = coturn(program.directory.path(), &statsdb(&program, 0), cli, &[]);
    program.line("allocations can be ended");
    let block = r#"{"ok": true, "block": {"for": "1h", "reason": "balance"}}"#;
    other.answer("bob", block);
    let mut bob = TurnClient::tcp(&coturn, "bob").call(&coturn);
    bob.relay(20, 200);
    other.started("bob");

    billing.answer("ann", block);
    let mut ann = TurnClient::tcp(&coturn, "ann").call(&coturn);
    ann.relay(20, 200);
    is_cut_off(&billing.ended("ann", 1)[0], "balance", &coturn);
    let listed = program.ask(&["blocks", "list", "--format", "json"]);
    assert!(listed.contains("\"by\":\"endpoint billing\""), "{listed}");
    assert!(!listed.contains("bob"), "{listed}");
    // And is told of what it has done, as of any other block.
    assert_eq!(billing.told_of("ann", 1)[0], "user.blocked: balance");
    let blocked = billing.of_user("ann").remove(0);
    let data = blocked.data();
    assert_eq!(
        (&data["by"], &data["realm"], &data["all_realms"]),
        (&"endpoint billing".into(), &"example.org".into(), &false.into())
    );
    assert!(data["until"].is_string(), "{data:#}");

    // An answer that cannot be obeyed is said, and blocks nobody.
    billing.answer("eve", r#"{"block": {"for": 3600}}"#);
    let mut eve = TurnClient::tcp(&coturn, "eve").call(&coturn);
    eve.relay(20, 200);
    program.line("cannot be obeyed");
    for client in [&mut bob, &mut eve] {
        assert_eq!(client.refresh(600), 0);
    }
    program.stop();
}

/// What an answer asks for is known to nobody else: where the database is away at that moment, it is done later.
#[test]
fn an_answer_is_obeyed_once_the_store_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let postgres = Postgres::start();
    let more = format!(
        "{}[enforce]\nobey = [\"billing\"]\n[log]\nlevel = \"debug\"\n",
        endpoint("billing", &url, "")
    );
    let mut program = on_postgres(&postgres, &more);
    program.start();
    let _feeder = hears(&program, 1);
    let (mut asked, _) = listener.accept().unwrap();
    let (mut request, mut some) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"}}") {
        let n = asked.read(&mut some).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&some[..n]);
    }
    postgres.stop();
    let block = r#"{"block": {"for": "1h", "reason": "balance"}}"#;
    let length = block.len();
    write!(
        asked,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{block}"
    )
    .unwrap();
    program.line("a block that an answer asks for cannot be made");
    postgres.go();
    eventually("the block", || {
        let listed = program.ask(&["blocks", "list", "--format", "json"]);
        listed.contains("cust_42").then_some(())
    });
    drop(listener);
    program.stop();
}
