//! The fakes of billing products (`tests/billing/`), each on a port of its own.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
};

use serde_json::Value;

use super::{DEADLINE, process::Process};

/// What would be on an invoice: by customer, meter and value.
pub(crate) type Sums = BTreeMap<(String, String, String), u64>;

pub(crate) struct Fakes {
    urls: BTreeMap<String, String>,
    _process: Process,
}

impl Fakes {
    /// Starts them, as `name`, `name=product` or `name:{settings}` each.
    #[track_caller]
    pub(crate) fn start(wishes: &[&str]) -> Fakes {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/billing/fake.py");
        let mut command = Command::new("python3");
        // Nothing is written beside the sources.
        command.args(["-B".as_ref(), script.as_os_str()]).args(wishes);
        let mut process = Process::start(command.env("FAKES_STAY", "1"));
        let urls = process.line("the addresses", |line| serde_json::from_str(line).ok());
        Fakes {
            urls,
            _process: process,
        }
    }

    pub(crate) fn url(&self, name: &str) -> &str {
        &self.urls[name]
    }

    #[track_caller]
    fn request(&self, name: &str, method: &str, path: &str, body: &str) -> String {
        let address = self.url(name).trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 20"), "{name} {path}: {head}");
        body.to_owned()
    }

    /// `counted`, `duplicates`, `counted_twice`, `errors`, `requests`.
    #[track_caller]
    pub(crate) fn state(&self, name: &str) -> Value {
        serde_json::from_str(&self.request(name, "GET", "/state", "")).unwrap()
    }

    /// Each ingest request as it came.
    #[track_caller]
    pub(crate) fn requests(&self, name: &str) -> Vec<Value> {
        serde_json::from_str(&self.request(name, "GET", "/requests", "")).unwrap()
    }

    #[track_caller]
    pub(crate) fn sums(&self, name: &str) -> Sums {
        let sums: Vec<Value> = serde_json::from_str(&self.request(name, "GET", "/sums", "")).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        sums.iter()
            .map(|sum| {
                let key = (text(&sum["customer"]), text(&sum["meter"]), text(&sum["value"]));
                (key, sum["sum"].as_u64().unwrap())
            })
            .collect()
    }

    /// Of all meters: each customer's sum of a value.
    #[track_caller]
    pub(crate) fn by_customer(&self, name: &str, value: &str) -> BTreeMap<String, u64> {
        let mut by_customer = BTreeMap::new();
        for ((customer, _, of), sum) in self.sums(name) {
            if of == value {
                *by_customer.entry(customer).or_default() += sum;
            }
        }
        by_customer
    }

    /// How it behaves from now on: see `switch` in `tests/billing/fakes/base.py`.
    #[track_caller]
    pub(crate) fn switch(&self, name: &str, wish: &Value) {
        self.request(name, "PUT", "/switches", &wish.to_string());
    }
}
