//! An answer that blocks, and one that has no say.

use super::{control, coturn, is_cut_off};
use crate::harness::{
    billing::{Billing, QUICK, statsdb},
    free_port,
    program::Program,
    turn::TurnClient,
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
