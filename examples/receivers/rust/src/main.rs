//! `cargo run -p turnhook-receiver-example -- 127.0.0.1:9000 usage.db whsec_…`

use std::{env, error::Error};

use standardwebhooks::Webhook;
use turnhook_receiver_example::{Books, router};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, database, secrets @ ..] = &arguments[..] else {
        return Err("usage: turnhook-receiver-example IP:PORT DATABASE WHSEC...".into());
    };
    let secrets: Vec<Webhook> = secrets
        .iter()
        .map(|secret| Webhook::new(secret))
        .collect::<Result<_, _>>()?;
    if secrets.is_empty() {
        return Err("a secret is needed (make one with `turnhook secret`)".into());
    }
    let listener = tokio::net::TcpListener::bind(listen).await?;
    eprintln!("listening on http://{}/turn", listener.local_addr()?);
    axum::serve(listener, router(secrets, Books::open(database)?)).await?;
    Ok(())
}
