//! Coming to PostgreSQL: the schema, and the rights that it takes.

use turnhook_store::{Error, Migrated, Mode, Store};

use crate::{
    postgres_cluster::Database,
    postgres_connection::commit,
    support::{Backend, at, postgres_options, run_on_postgres},
};

#[test]
fn schema() {
    run_on_postgres(&[
        ("four_come_at_once", |on| Box::pin(four_come_at_once(on))),
        ("who_comes_second_waits_before_it_changes_anything", |on| {
            Box::pin(who_comes_second_waits_before_it_changes_anything(on))
        }),
        ("a_role_without_rights_runs_on_what_is_migrated", |on| {
            Box::pin(a_role_without_rights_runs_on_what_is_migrated(on))
        }),
        ("other_schemas_are_refused", |on| {
            Box::pin(other_schemas_are_refused(on))
        }),
        ("another_programs_tables_are_left_alone", |on| {
            Box::pin(another_programs_tables_are_left_alone(on))
        }),
    ]);
}

async fn four_come_at_once(on: &Backend) {
    for begun in [false, true, false, true] {
        let db = Database::new(on);
        if begun {
            // As one leaves it that was stopped at the very beginning: now all four are equally far.
            db.sql(
                "CREATE TABLE schema_version (id integer PRIMARY KEY, version integer NOT NULL, migrated_at bigint); \
                 INSERT INTO schema_version VALUES (1, 0)",
            );
        }
        let connect = || Store::connect(postgres_options(&db.url()), Mode::Run);
        let (a, b, c, d) = tokio::join!(connect(), connect(), connect(), connect());
        let stores = [a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap()];
        assert!(stores.iter().all(|s| s.store_id() == stores[0].store_id()));
        assert_eq!(
            stores[0].describe(),
            format!("postgres://127.0.0.1:{}/{}", db.server.port(), db.name)
        );
        assert_eq!(
            db.sql("SELECT version FROM schema_version"),
            Store::POSTGRES_SCHEMA.to_string()
        );
        assert_eq!(db.sql("SELECT count(*) FROM store"), "1");
    }
    let db = Database::new(on);
    let options = postgres_options(&db.url());
    let migrate = || Store::migrate(&options);
    let (a, b, c, d) = tokio::join!(migrate(), migrate(), migrate(), migrate());
    let mut done = [a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap()].map(|m| (m.from, m.to));
    done.sort_unstable();
    let to = Store::POSTGRES_SCHEMA;
    assert_eq!(done, [(0, to), (to, to), (to, to), (to, to)]);
}

async fn who_comes_second_waits_before_it_changes_anything(on: &Backend) {
    let db = Database::new(on);
    db.sql(
        "CREATE TABLE schema_version (id integer PRIMARY KEY, version integer NOT NULL, migrated_at bigint); \
         INSERT INTO schema_version VALUES (1, 0)",
    );
    let first = db.hold("SELECT * FROM schema_version FOR UPDATE").await;
    let options = postgres_options(&db.url());
    let second = tokio::spawn(async move { Store::migrate(&options).await });
    db.waiting(1).await;
    let changing = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(db.sql(changing), "0");
    drop(first);
    let to = Store::POSTGRES_SCHEMA;
    assert_eq!(second.await.unwrap().unwrap(), Migrated { from: 0, to });
}

async fn a_role_without_rights_runs_on_what_is_migrated(on: &Backend) {
    let db = Database::new(on);
    let role = format!("app_{}", db.name);
    // Before PostgreSQL 15 everybody may make tables unless that is taken away.
    db.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'swordfish'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    ));
    let options = postgres_options(&db.server.url_of(&role, "swordfish", &db.name));
    let unmigrated = Error::Unmigrated {
        store: format!("postgres://127.0.0.1:{}/{}", db.server.port(), db.name),
        found: 0,
        known: Store::POSTGRES_SCHEMA,
    };
    for mode in [Mode::Run, Mode::Shared] {
        let error = Store::connect(options.clone(), mode).await.unwrap_err();
        assert_eq!(error, unmigrated);
        assert!(error.to_string().contains("turnhook migrate"), "{error}");
    }
    assert!(matches!(
        Store::migrate(&options).await.unwrap_err(),
        Error::Refused { .. }
    ));
    let to = Store::POSTGRES_SCHEMA;
    assert_eq!(
        Store::migrate(&postgres_options(&db.url())).await.unwrap(),
        Migrated { from: 0, to }
    );
    db.sql(&format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    ));
    // It may ask.
    assert_eq!(Store::migrate(&options).await.unwrap(), Migrated { from: to, to });
    let store = Store::connect(options, Mode::Run).await.unwrap();
    let source = store.state().source("eu-1").await.unwrap();
    store.cluster().unwrap().beat(&[source]).await.unwrap();
    assert!(store.state().commit(commit(&store, 1).await).await.is_ok());
    assert!(
        store
            .admin()
            .pause("billing", at(1), "maintenance")
            .await
            .unwrap()
    );
    store.close().await;
    drop(store);
    db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

async fn other_schemas_are_refused(on: &Backend) {
    let db = Database::new(on);
    drop(
        Store::connect(postgres_options(&db.url()), Mode::Run)
            .await
            .unwrap(),
    );
    let known = Store::POSTGRES_SCHEMA;
    db.sql("UPDATE schema_version SET version = version + 1");
    for mode in [Mode::Run, Mode::Shared] {
        let error = Store::connect(postgres_options(&db.url()), mode)
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Newer { found, known: k, .. } if (found, k) == (known + 1, known)),
            "{error}"
        );
        assert!(error.to_string().contains("newer turnhook"), "{error}");
    }
    let error = Store::migrate(&postgres_options(&db.url())).await.unwrap_err();
    assert!(matches!(error, Error::Newer { .. }), "{error}");
    db.sql("UPDATE schema_version SET version = version - 2");
    let error = Store::connect(postgres_options(&db.url()), Mode::Shared)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Unmigrated { found, .. } if found == known - 1),
        "{error}"
    );
}

async fn another_programs_tables_are_left_alone(on: &Backend) {
    let db = Database::new(on);
    db.sql("CREATE TABLE session (theirs text)");
    let error = Store::connect(postgres_options(&db.url()), Mode::Run)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::BadUrl { .. }), "{error}");
    assert!(error.to_string().contains("session"), "{error}");
    let tables = db.sql(
        "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'",
    );
    assert_eq!(tables, "schema_version,session");
}
