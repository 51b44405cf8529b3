//! Who is let in to page and JSON API, and from where.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::harness::{
    billing::Billing,
    page::{PASSWORD, Page, basic},
    program::Program,
    turnhook::stderr,
};

fn program() -> (Program, Page) {
    let billing = Billing::start();
    let mut program = Program::new("");
    let (page, table) = Page::new(&program);
    program.configure(&(table + &billing.endpoint()));
    program.start();
    (program, page)
}

#[test]
fn people_and_programs_by_their_roles() {
    let (program, page) = program();
    for (who, name, role) in [
        (&page.viewer, "vera", "viewer"),
        (&page.operator, "otto", "operator"),
        (&page.token, "invoices", "viewer"),
    ] {
        let answer = page.get_as(who, "/api/v1/whoami");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), serde_json::json!({ "name": name, "role": role }));
    }
    let nobody = page.send("GET / HTTP/1.1\r\nhost: localhost", "");
    assert_eq!(nobody.status, 401);
    assert!(
        nobody.header("www-authenticate").unwrap().starts_with("Basic"),
        "{nobody:?}"
    );
    for wrong in [
        "Bearer nonsense",
        "Basic nonsense",
        "Digest x",
        &page.token.replace("Bearer ", "Basic "),
        &page.viewer.replace("Basic ", "Bearer "),
    ] {
        assert_eq!(page.get_as(wrong, "/api/v1/whoami").status, 401, "{wrong}");
    }
    // Whatever changes something is for operators, whether or not there is such a path.
    let answer = page.post_as(&page.viewer, "/api/v1/nothing", "", "");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(page.post("/api/v1/nothing", "").status, 404);

    // Every answer bears them, refusals too.
    let status = page.get("/api/v1/status");
    assert_eq!(status.json()["sources"][0]["name"], "eu-1");
    for answer in [status, nobody] {
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"));
        for (name, value) in [
            ("referrer-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{answer:?}");
        }
        assert_eq!(answer.header("set-cookie"), None);
    }

    // Whoever is taken out of the file is put out.
    let users = program.directory.path().join("users");
    let left: String = fs::read_to_string(&users)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("otto"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&users, left).unwrap();
    assert_eq!(page.get_as(&page.viewer, "/api/v1/whoami").status, 401);
    assert_eq!(page.get("/api/v1/whoami").status, 200);
}

#[test]
fn other_sites_and_other_names_are_refused() {
    let (_bridge, page) = program();
    let post = |more: &str| page.post_as(&page.operator, "/api/v1/nothing", more, "");
    for more in [
        "sec-fetch-site: cross-site\r\norigin: http://evil.test\r\n",
        "sec-fetch-site: same-site\r\n",
        "origin: null\r\n",
        "origin: http://evil.test\r\n",
    ] {
        let answer = post(more);
        assert_eq!(answer.status, 403, "{more}");
        assert!(answer.body.contains("another site"), "{answer:?}");
    }
    for more in [
        "",
        "sec-fetch-site: same-origin\r\n",
        "origin: http://localhost\r\n",
    ] {
        assert_eq!(post(more).status, 404, "{more}");
    }
    // Before anybody is asked for a password.
    let rebound = page.send("GET / HTTP/1.1\r\nhost: rebound.example", "");
    assert_eq!(rebound.status, 421);
    assert!(rebound.body.contains("[admin] hosts"), "{rebound:?}");
    let head = format!(
        "GET /api/v1/whoami HTTP/1.1\r\nhost: turnhook.test:81\r\nauthorization: {}",
        page.viewer
    );
    assert_eq!(page.send(&head, "").status, 200);
}

#[test]
fn guesses_are_limited_and_keep_nobody_out_who_is_in() {
    let (program, page) = program();
    assert_eq!(page.get_as(&page.viewer, "/api/v1/whoami").status, 200);
    let statuses: Vec<u16> = (0..12)
        .map(|n| page.get_as(&basic("vera", &format!("guess {n}")), "/").status)
        .collect();
    assert!(
        statuses.starts_with(&[401; 10]) && statuses.ends_with(&[429]),
        "{statuses:?}"
    );
    let refused = page.get_as(&basic("otto", PASSWORD), "/api/v1/whoami");
    assert_eq!(
        refused.status, 429,
        "the right one is not tried either: {refused:?}"
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=150).contains(&wait), "{wait}");
    assert_eq!(page.get_as(&page.viewer, "/api/v1/whoami").status, 200);
    assert_eq!(page.get_as(&page.token, "/api/v1/whoami").status, 200);
    let log = program.log().join("\n");
    assert!(!log.contains("guess") && !log.contains(PASSWORD), "{log}");
}

#[test]
fn it_is_not_there_unless_configured_and_not_without_tls_beyond_loopback() {
    let program = Program::new("");
    let (page, table) = Page::new(&program);
    let check = |table: &str| {
        program.configure(table);
        let output = program.command(&["check"]);
        (output.status.code(), stderr(&output).to_owned())
    };
    assert_eq!(check(&table).0, Some(0));
    let beyond = table.replace("127.0.0.1", "0.0.0.0");
    let (code, told) = check(&beyond);
    assert!(
        code == Some(78) && told.contains("admin.listen") && told.contains("tls_cert"),
        "{told}"
    );
    assert_eq!(check(&(beyond.clone() + "behind_proxy = true\n")).0, Some(0));
    let (code, told) = check(&(beyond + "tls_cert = \"users\"\ntls_key = \"users\"\n"));
    assert!(code == Some(78) && told.contains("PEM"), "{told}");
    let (code, told) = check("[admin]\nlisten = \"127.0.0.1:0\"\n");
    assert!(code == Some(78) && told.contains("turnhook admin user"), "{told}");
    fs::write(program.directory.path().join("tokens"), "x:viewer:s3cret\n").unwrap();
    let (code, told) = check(&table);
    assert!(
        code == Some(78) && told.contains("tokens:1: ") && !told.contains("s3cret"),
        "{told}"
    );

    let mut program = Program::new("");
    program.start();
    assert!(TcpStream::connect(("127.0.0.1", page.port)).is_err());
    program.stop();
}

#[test]
fn with_tls_of_its_own() {
    let program = Program::new("");
    let folder = program.directory.path().to_owned();
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made
    };
    let first = renew();
    let (page, table) = Page::new(&program);
    let table = table.replace("127.0.0.1", "0.0.0.0") + "tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    program.configure(&table);
    let mut program = program;
    program.start();
    let ask = |trusted: &rcgen::CertifiedKey<rcgen::KeyPair>| -> std::io::Result<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.cert.der().clone()).unwrap();
        let ring = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = rustls::ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", page.port)).unwrap();
        let mut stream = rustls::StreamOwned::new(client, stream);
        write!(
            stream,
            "GET /api/v1/whoami HTTP/1.1\r\nhost: localhost\r\nauthorization: {}\r\nconnection: close\r\n\r\n",
            page.token
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask(&first).unwrap();
    assert!(answer.contains("invoices"), "{answer}");

    // One that was renewed is shown once the configuration was read again.
    let second = renew();
    assert!(ask(&second).is_err(), "it is not read before");
    program.process().signal("HUP");
    program.line("the configuration was read again");
    let answer = ask(&second).unwrap();
    assert!(answer.contains("invoices"), "{answer}");
    assert!(ask(&first).is_err());
    let log = program.stop();
    assert!(
        !log.iter().any(|line| line.contains("needs a restart")),
        "{log:#?}"
    );
}
