//! Page and JSON API, asked byte by byte: what a browser would hide is what is tested.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{DEADLINE, eventually, free_port, program::Program, turnhook};

/// Passwords of the people below.
pub(crate) const PASSWORD: &str = "correct horse";

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The page of a program, with a viewer `vera`, an operator `otto`, and a token of each role.
pub(crate) struct Page {
    pub(crate) port: u16,
    /// What goes into `Authorization`.
    pub(crate) viewer: String,
    pub(crate) operator: String,
    pub(crate) token: String,
}

pub(crate) fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

impl Page {
    /// Makes the files, and the table to be configured.
    pub(crate) fn new(program: &Program) -> (Page, String) {
        let port = free_port();
        let folder = program.directory.path();
        let lines = ["vera:viewer", "otto:operator"].map(|who| {
            let (name, role) = who.split_once(':').unwrap();
            made(program, &["admin", "user", name, "--role", role]).0
        });
        fs::write(folder.join("users"), lines.concat()).unwrap();
        let (line, told) = made(program, &["admin", "token", "invoices", "--role", "viewer"]);
        fs::write(folder.join("tokens"), line).unwrap();
        let token = told.trim().rsplit(' ').next().unwrap().to_owned();
        let page = Page {
            port,
            viewer: basic("vera", PASSWORD),
            operator: basic("otto", PASSWORD),
            token: format!("Bearer {token}"),
        };
        let table = format!(
            "[admin]\nlisten = \"127.0.0.1:{port}\"\nusers_file = \"users\"\ntokens_file = \"tokens\"\n\
             hosts = [\"turnhook.test\"]\n"
        );
        (page, table)
    }

    /// Sends a request as it stands, without its last empty line, and a body.
    pub(crate) fn send(&self, head: &str, body: &str) -> Answer {
        eventually("an answer of the page", || self.try_send(head, body))
    }

    fn try_send(&self, head: &str, body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let request = format!("{head}\r\nconnection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some(Answer {
            status: head.get(9..12)?.parse().ok()?,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    pub(crate) fn get_as(&self, who: &str, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {who}");
        self.send(&head, "")
    }

    /// As the operator.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_as(&self.operator, path)
    }

    /// A form, with further lines of its head.
    pub(crate) fn post_as(&self, who: &str, path: &str, more: &str, form: &str) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {who}\r\n{more}\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}",
            form.len()
        );
        self.send(&head, form)
    }

    /// As the operator, from a page of its own.
    pub(crate) fn post(&self, path: &str, form: &str) -> Answer {
        self.post_as(&self.operator, path, "sec-fetch-site: same-origin\r\n", form)
    }
}

/// What a command prints that is given a password: on stdout, and on stderr.
#[track_caller]
pub(crate) fn made(program: &Program, arguments: &[&str]) -> (String, String) {
    let mut command = turnhook::command(program.directory.path());
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who makes a token is asked for nothing, and may have ended already.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{PASSWORD}\n").as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", turnhook::stderr(&output));
    (
        turnhook::stdout(&output).to_owned(),
        turnhook::stderr(&output).to_owned(),
    )
}
