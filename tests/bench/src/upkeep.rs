//! Whether upkeep keeps pace: events are made and delivered as fast as they can be, retention is a few seconds, and the store's
//! size is looked at again and again. It must come to rest.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    delivery::calls,
    fixture::{Result, Turnhook, free_port, wait_for},
    receiver::Receiver,
};

const RETENTION: &str = "10s";
/// Sessions that are fed at once.
const PART: usize = 100;
/// Events that may be ahead of the receiver: less than the dispatcher keeps in memory.
const UNDER_WAY: u64 = 3000;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// How often it is looked at, and for how long all in all.
const LOOK: Duration = Duration::from_secs(15);
const LOOKS: usize = 8;

pub fn run() -> Result<()> {
    let receiver = Receiver::start(false)?;
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let source = format!("[[source]]\nname = \"bench\"\ntype = \"direct\"\nlisten = \"127.0.0.1:{port}\"");
    let endpoint = format!(
        "[[endpoint]]\nname = \"bench\"\nurl = \"http://127.0.0.1:{}/\"\nsecrets = [\"{SECRET}\"]\nrate_limit = \"unlimited\"",
        receiver.port
    );
    let session = "usage_interval = \"0s\"\nlinger = \"0s\"\ngroup_by = \"allocation\"";
    let store = format!("path = \"{}\"\nretention = \"{RETENTION}\"", dir.path().join("turnhook.db").display());
    let turnhook = Turnhook::start_on(dir.path(), &store, &source, session, &endpoint)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answers = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while answers.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let delivered = || receiver.seen.requests.load(Ordering::Relaxed);
    let start = Instant::now();
    let (mut fed, mut before) = (0, 0);
    let (mut commits, mut seconds) = (0.0, 0.0);
    for look in 1..=LOOKS {
        let until = start + LOOK * u32::try_from(look)?;
        while Instant::now() < until {
            stream.write_all(&calls(fed..fed + PART))?;
            fed += PART;
            let sent = 2 * fed as u64;
            wait_for("deliveries", || delivered() + UNDER_WAY >= sent)?;
        }
        let (done, sum) = (
            turnhook.metric("turnhook_commit_seconds_count")?,
            turnhook.metric("turnhook_commit_seconds_sum")?,
        );
        println!(
            "upkeep after {} s: {:.0} deliveries/s, {:.1} ms a commit, {} MiB in the store",
            start.elapsed().as_secs(),
            (delivered() - before) as f64 / LOOK.as_secs_f64(),
            (sum - seconds) * 1000.0 / (done - commits),
            size(dir.path())? >> 20,
        );
        before = delivered();
        (commits, seconds) = (done, sum);
    }
    println!("upkeep {} events delivered in all, kept for {RETENTION}", delivered());
    Ok(())
}

/// Of the store's files.
fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with("turnhook.db") {
            sum += file.metadata()?.len();
        }
    }
    Ok(sum)
}
