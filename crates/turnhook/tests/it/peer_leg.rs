//! Whether coturn reports the peer leg is found out, and said in the log and by `/status`.

use std::fs;

use crate::harness::{
    billing::{Billing, Webhook},
    eventually,
    feeder::{Allocation, Feeder},
    program::Program,
};

fn known(program: &Program) -> serde_json::Value {
    program.status()["sources"]["eu-1"]["peer_leg"].clone()
}

/// Three that close without a word of their peers.
fn three_old_calls(program: &Program) -> Feeder {
    let mut feeder = Feeder::connect(program.source);
    for id in 1..=3 {
        let mut allocation = Allocation::new("cust_42", id);
        allocation.client = [10, 1_040, 10, 1_040];
        feeder.open(&allocation, 600).unwrap();
        feeder.delete(&allocation).unwrap();
        feeder.client_total(&allocation).unwrap();
    }
    feeder
}

#[test]
fn an_old_coturn_is_said_and_billed_by_its_client_leg() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    program.start();
    assert!(known(&program).is_null());
    let _feeder = three_old_calls(&program);
    program.line("coturn reports no peer leg");
    eventually("the status", || (known(&program) == false).then_some(()));
    eventually("the bill", || {
        let webhooks = billing.webhooks();
        let usage = |w: &Webhook| w.data()["usage"]["billable_bytes"].as_u64();
        let ends = webhooks.iter().filter(|w| w.is("session.end")).filter_map(usage);
        (ends.sum::<u64>() == 3 * 2_080).then_some(())
    });
    // And it is known after a restart.
    program.stop();
    program.start();
    eventually("the status", || (known(&program) == false).then_some(()));
    program.stop();
}

#[test]
fn a_peer_leg_that_is_configured_and_not_there_is_said() {
    let billing = Billing::start();
    let mut program = Program::new(&billing.endpoint());
    let file = program.directory.path().join("turnhook.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replacen("type = \"direct\"\n", "type = \"direct\"\npeer_leg = true\n", 1);
    fs::write(file, text).unwrap();
    program.start();
    eventually("the status", || (known(&program) == true).then_some(()));
    let _feeder = three_old_calls(&program);
    program.line("peer_leg = true, but coturn reports no peer leg: nothing is billed");
    program.stop();
}
