//! Certificates of a PostgreSQL server.

use std::fs;

use turnhook_store::{Error, Mode, PostgresOptions, Store};

use crate::{
    postgres_cluster::Database,
    support::{Backend, postgres_options},
};

/// Called as the last of a server's tests: it speaks TLS from here on.
pub(crate) async fn certificates_are_verified(on: &Backend) {
    let db = Database::new(on);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let data = db.server.dir().join("data");
    let key = data.join("server.key");
    for (path, pem) in [
        (data.join("server.crt"), made.cert.pem()),
        (key, made.signing_key.serialize_pem()),
    ] {
        fs::write(&path, pem).unwrap();
        db.server.give(&path);
    }
    db.sql("ALTER SYSTEM SET ssl = on");
    tokio::task::block_in_place(|| db.server.restart());
    let folder = tempfile::tempdir().unwrap();
    let trust = |name: &str, pem: String| {
        let path = folder.path().join(name);
        fs::write(&path, pem).unwrap();
        PostgresOptions {
            ca_file: Some(path),
            ..postgres_options(&format!("{}?sslmode=verify-full", db.url()))
        }
    };
    let store = Store::connect(trust("right.pem", made.cert.pem()), Mode::Run)
        .await
        .unwrap();
    store.state().source("eu-1").await.unwrap();
    let sql = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'turnhook'";
    assert_eq!(db.sql(sql), "t");
    let error = Store::connect(trust("wrong.pem", other.cert.pem()), Mode::Run)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Refused { .. }) && error.to_string().contains("certificate"),
        "{error}"
    );
    let error = Store::connect(trust("none.pem", String::new()), Mode::Run)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Refused { .. }) && error.to_string().contains("none.pem"),
        "{error}"
    );
    db.sql("ALTER SYSTEM RESET ssl");
}
