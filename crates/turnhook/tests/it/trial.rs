//! An endpoint is tried from the page of a running turnhook: what is sent, to whom, and that nobody is billed for it.

use crate::harness::{
    billing::Billing,
    eventually, free_port,
    page::Page,
    program::{Program, endpoint},
};

#[test]
fn a_sample_from_the_page_is_signed_marked_and_billed_to_nobody() {
    let billing = Billing::start();
    let away = |port: u16| endpoint("away", &format!("http://127.0.0.1:{port}/?key=sesame"), "");
    let mut program = Program::new("");
    let (page, table) = Page::new(&program);
    program.configure(&format!("{table}{}{}", billing.endpoint(), away(free_port())));
    program.start();

    let told = page
        .post("/api/v1/endpoints/billing/test", "type=session.end&case=many")
        .json();
    assert_eq!(
        (&told["well"], &told["status"]),
        (&true.into(), &204.into()),
        "{told}"
    );
    let pinged = page.post("/endpoints/billing/test", "type=endpoint.ping");
    assert!(
        pinged.status == 200 && pinged.body.contains("billing is well"),
        "{pinged:?}"
    );
    // The receiver checks signatures, and the schema of each body.
    let came = billing.webhooks();
    assert_eq!(came.len(), 2, "{came:?}");
    assert!(came[0].is("session.end") && came[1].is("endpoint.ping"));
    assert_eq!(told["sent"], came[0].id);
    for webhook in &came {
        assert!(
            webhook.id.starts_with("evt_test_") && webhook.body["test"] == true,
            "{webhook:?}"
        );
    }
    // Neither is in the ledger.
    assert!(program.ask(&["sessions", "list"]).contains("no sessions"));

    let failed = page.post("/api/v1/endpoints/away/test", "").json();
    assert_eq!(
        (&failed["well"], &failed["status"]),
        (&false.into(), &().into()),
        "{failed}"
    );
    assert!(
        failed["error"].as_str().unwrap().contains("could not connect"),
        "{failed}"
    );
    assert!(!failed.to_string().contains("sesame"), "{failed}");
    let record = page.get("/api/v1/audit").json();
    let did: Vec<_> = record["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["target"])
        .collect();
    assert_eq!(did, ["away", "billing", "billing"]);

    // After a reload it is the endpoint of now that is tried and shown.
    program.configure(&format!("{table}{}", billing.endpoint_named("away")));
    program.process().signal("HUP");
    eventually("the endpoint of now", || {
        let told = page.post("/api/v1/endpoints/away/test", "").json();
        (told["well"] == true).then_some(())
    });
    let shown = page.get("/endpoints/away").body;
    assert!(!shown.contains("key="), "the settings of before: {shown}");
    program.stop();
}
