//! Connections that are no coturn's.

use super::*;

#[test]
fn tools_neither_hold_a_server_up_nor_stop_it() {
    let mut w = World::new();
    let ids = w.start("a", 2);
    let tool = w.open("a");
    w.tool(tool);
    w.close(tool, ClosedBy::Server);
    w.pass(60_000);
    assert!(w.emitted().is_empty());
    let tool = w.open("a");
    w.tool(tool);
    w.close_all(&ids, ClosedBy::Server);
    w.pass(60_000);
    assert_eq!(w.emitted().len(), 1);
}

#[test]
fn names_made_up_take_no_memory_and_nobodys_place() {
    let mut w = World::new();
    let honest = w.open("honest");
    w.publish(honest);
    for i in 0..10_000 {
        let id = w.open(&format!("x{i}"));
        w.publish(id);
        w.close(id, ClosedBy::Server);
    }
    let id = w.silent();
    for i in 0..10_000 {
        w.tracker.identified(id, &name(&format!("y{i}")), w.at());
    }
    assert!(w.tracker.servers.len() <= OF_ONE, "{}", w.tracker.servers.len());
    assert!(w.tracker.connections.len() <= 2);
    // While connections hold them, no more are taken from that address, and from others they are.
    let held: Vec<u64> = (0..OF_ONE - 2).map(|i| w.open(&format!("z{i}"))).collect();
    let id = w.silent();
    assert!(!w.tracker.identified(id, &name("one too many"), w.at()));
    assert!(!w.tracker.published(id, &name("one too many"), w.at()));
    assert!(!w.tracker.keys(id, &name("one too many"), w.at()));
    w.next += 1;
    w.tracker
        .accepted(w.next, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 8)), w.at());
    assert!(w.tracker.identified(w.next, &name("other"), w.at()));
    w.close(held[0], ClosedBy::Server);
    assert!(w.tracker.identified(id, &name("one too many"), w.at()));
    assert!(w.tracker.servers.contains_key(&name("honest")));
    assert_eq!(w.tracker.names.values().sum::<usize>(), w.tracker.servers.len());
}
