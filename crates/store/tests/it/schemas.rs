//! The same store in two databases: their schemas may differ only where it is meant, and said here.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_store::{Mode, SessionFilter, Store};

use crate::support::{Backend, Fixture, T0, at, event, session};

crate::support::on_both! {
    sums_stop_at_the_largest_number,
    since_and_until_find_what_was_open_then,
}

/// SQLite alone: the ledger and the state's table are brought up to date later, from these.
const ONLY_SQLITE: &[&str] = &["event_key", "session_event", "state_log"];
/// PostgreSQL alone: numbers, nodes and leases, and counts that one process keeps in memory.
const ONLY_POSTGRES: &[&str] = &["backlog", "counter", "lease", "node"];
/// SQLite alone: how far the ledger is.
const COLUMNS_ONLY_SQLITE: &[&str] = &["store.ledger_event", "store.usage_event", "store.usage_key"];
/// PostgreSQL alone, with what does the same on SQLite: `delivery_pending`, to which SQLite adds the id by itself, and the
/// table `session_event`.
const INDEXES_ONLY_POSTGRES: &[&str] = &["delivery_waiting", "event_session"];
/// On PostgreSQL the walk is by id, and the one by session is `delivery_waiting`.
const INDEXES_THAT_DIFFER: &[&str] = &["delivery_pending"];

#[derive(Debug, PartialEq, Eq)]
struct Schema {
    /// `table.column`: what it holds, and whether it may be NULL.
    columns: BTreeMap<String, String>,
    /// Those with names of their own: table, columns, unique, partial.
    indexes: BTreeMap<String, String>,
}

impl Schema {
    fn tables(&self) -> BTreeSet<&str> {
        let tables = self.columns.keys().filter_map(|c| c.split('.').next());
        tables.collect()
    }

    fn without(mut self, tables: &[&str], columns: &[&str], indexes: &[&str]) -> Schema {
        for table in tables {
            assert!(self.tables().contains(table), "no table {table} any more");
        }
        for column in columns {
            assert!(self.columns.contains_key(*column), "no column {column} any more");
        }
        for index in indexes {
            assert!(self.indexes.contains_key(*index), "no index {index} any more");
        }
        self.columns.retain(|name, _| {
            !columns.contains(&name.as_str()) && !tables.iter().any(|t| name.starts_with(&format!("{t}.")))
        });
        self.indexes.retain(|name, _| !indexes.contains(&name.as_str()));
        self
    }

    /// From lines `c|table|column|type|null` and `i|name|table|unique|partial|columns`.
    fn read(lines: &str) -> Schema {
        let mut schema = Schema {
            columns: BTreeMap::new(),
            indexes: BTreeMap::new(),
        };
        for line in lines.lines() {
            // `user` is a word of SQL's own on PostgreSQL.
            let line = line.replace("user_name", "user");
            match line.split('|').collect::<Vec<_>>()[..] {
                ["c", table, column, kind, null] => {
                    let kind = match kind.to_lowercase().as_str() {
                        "integer" | "bigint" | "smallint" | "boolean" => "number",
                        "blob" | "bytea" => "bytes",
                        "text" => "text",
                        other => panic!("{line}: what is {other}?"),
                    };
                    schema
                        .columns
                        .insert(format!("{table}.{column}"), format!("{kind}, null {null}"));
                }
                ["i", name, table, unique, partial, columns] => {
                    // SQLite ends each with the row's id by itself.
                    let columns = columns.strip_suffix(",id").unwrap_or(columns);
                    let text = format!("{table} ({columns}), unique {unique}, partial {partial}");
                    schema.indexes.insert(name.to_owned(), text);
                }
                _ => panic!("{line}"),
            }
        }
        schema
    }
}

fn of_sqlite(f: &Fixture) -> Schema {
    let db = rusqlite::Connection::open(f.path()).unwrap();
    let mut lines = String::new();
    for sql in [
        "SELECT 'c|' || m.name || '|' || c.name || '|' || c.type || '|' || (c.\"notnull\" = 0 AND c.pk = 0) FROM sqlite_schema m \
         JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT IN ('schema_version', 'sqlite_stat1')",
        "SELECT 'i|' || i.name || '|' || m.name || '|' || i.\"unique\" || '|' || i.partial || '|' || \
         (SELECT group_concat(x.name) FROM pragma_index_info(i.name) x) \
         FROM sqlite_schema m JOIN pragma_index_list(m.name) i WHERE m.type = 'table' AND i.origin = 'c'",
    ] {
        let mut stmt = db.prepare(sql).unwrap();
        for line in stmt.query_map([], |r| r.get::<_, String>(0)).unwrap() {
            lines += &(line.unwrap() + "\n");
        }
    }
    Schema::read(&lines)
}

fn of_postgres(f: &Fixture) -> Schema {
    let sql = "SELECT 'c|' || table_name || '|' || column_name || '|' || data_type || '|' || (is_nullable = 'YES')::int \
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'schema_version' AND data_type <> 'ARRAY' \
         UNION ALL SELECT 'i|' || i.relname || '|' || t.relname || '|' || x.indisunique::int || '|' || (x.indpred IS NOT NULL)::int \
         || '|' || (SELECT string_agg(coalesce(a.attname, 'hash'), ',' ORDER BY k.n) FROM unnest(x.indkey) WITH ORDINALITY k (c, n) \
         LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.c AND k.c > 0) \
         FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid \
         JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = 'public' \
         AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.oid)";
    Schema::read(&f.server().sql(f.database(), sql))
}

#[test]
fn the_two_schemas_say_the_same() {
    let server = std::sync::Arc::new(crate::postgres::Postgres::start());
    crate::support::run(Box::pin(async move {
        let file = Fixture::new(&Backend::Sqlite, &[]).await;
        let database = Fixture::new(&Backend::Postgres(server), &[]).await;
        let (sqlite, postgres) = (of_sqlite(&file), of_postgres(&database));
        let sqlite = sqlite.without(ONLY_SQLITE, COLUMNS_ONLY_SQLITE, INDEXES_THAT_DIFFER);
        let both = [INDEXES_ONLY_POSTGRES, INDEXES_THAT_DIFFER].concat();
        let postgres = postgres.without(ONLY_POSTGRES, &[], &both);
        assert_eq!(sqlite.columns, postgres.columns);
        assert_eq!(sqlite.indexes, postgres.indexes);
    }));
}

/// On one database such a sum was refused, again and again; on the other it became a floating point number, which
/// nothing could read any more.
async fn sums_stop_at_the_largest_number(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let most = turnhook_reducer::usage::Usage::from([i64::MAX as u64; 9]);
    let beyond = turnhook_reducer::usage::Usage::from([u64::MAX; 9]);
    for (n, delta) in [(1, most), (2, most), (3, beyond), (4, most)] {
        let mut end = event(n, 0, 0, n, "cust_42", true);
        (end.usage, end.usage_delta) = (delta, delta);
        f.store.state().commit(f.commit(n, vec![end])).await.unwrap();
        // Into the ledger, which is where a file adds them up.
        let found = f
            .store
            .ledger()
            .sessions(SessionFilter::default(), None, 10)
            .await
            .unwrap();
        assert_eq!(found.len() as u64, n);
        assert!(found.iter().all(|s| s.usage == most));
    }
    let days = f
        .store
        .ledger()
        .usage_by_day(0, u32::MAX, None, 10)
        .await
        .unwrap();
    assert_eq!(days.len(), 1);
    assert_eq!((days[0].usage, days[0].started, days[0].ended), (most, 0, 4));
}

/// Sessions of all kinds around two times, by every filter, in pages of an odd size, against what the rows themselves say.
async fn since_and_until_find_what_was_open_then(on: &Backend) {
    let f = Fixture::new(on, &["billing"]).await;
    let mut all = Vec::new();
    for n in 0..60u64 {
        let (began, over) = (n * 10, n * 10 + (n * 37) % 300);
        let user = if n % 3 == 0 { "anna" } else { "bert" };
        let mut events = vec![event(n, began, 0, began, user, false)];
        let ended = n % 7 != 0;
        if ended {
            events.push(event(n, began, 1, over, user, true));
        }
        all.push((session(n, began), began, ended.then_some(over), user));
        f.store.state().commit(f.commit(1000 + n, events)).await.unwrap();
    }
    all.reverse();
    for (since, until) in [
        (None, None),
        (Some(305), None),
        (None, Some(305)),
        (Some(290), Some(400)),
        (Some(5000), None),
    ] {
        for open in [None, Some(true), Some(false)] {
            for user in [None, Some("anna")] {
                let want: Vec<_> = all
                    .iter()
                    .filter(|(_, _, over, _)| since.is_none_or(|since| over.is_none_or(|over| over >= since)))
                    .filter(|(_, began, ..)| until.is_none_or(|until| *began < until))
                    .filter(|(_, _, over, _)| open.is_none_or(|open| open == over.is_none()))
                    .filter(|(.., of)| user.is_none_or(|user| user == *of))
                    .map(|(id, ..)| *id)
                    .collect();
                let filter = SessionFilter {
                    open,
                    since: since.map(at),
                    until: until.map(at),
                    user: user.map(|user| user.as_bytes().to_vec()),
                    ..SessionFilter::default()
                };
                let mut found = Vec::new();
                loop {
                    let page = f
                        .store
                        .ledger()
                        .sessions(filter.clone(), found.last().copied(), 7)
                        .await
                        .unwrap();
                    if page.is_empty() {
                        break;
                    }
                    found.extend(page.iter().map(|row| row.id));
                }
                assert_eq!(found, want, "{filter:?}");
            }
        }
    }
}

/// The file of an earlier version, with a sum that had overflowed.
#[tokio::test]
async fn a_sum_that_was_spoilt_is_mended_by_the_migration() {
    let f = Fixture::new(&Backend::Sqlite, &["billing"]).await;
    let mut end = event(1, 0, 0, 1, "cust_42", true);
    end.usage_delta = turnhook_reducer::usage::Usage::from([i64::MAX as u64; 9]);
    f.store.state().commit(f.commit(1, vec![end])).await.unwrap();
    f.store
        .ledger()
        .sessions(SessionFilter::default(), None, 1)
        .await
        .unwrap();
    f.store.close().await;
    let db = rusqlite::Connection::open(f.path()).unwrap();
    db.execute_batch(
        "UPDATE usage_day SET billable_bytes = billable_bytes + billable_bytes; \
         DELETE FROM schema_version WHERE version > 1; ALTER TABLE store DROP COLUMN horizon; DROP TABLE refused; \
         DROP INDEX session_of_user; DROP INDEX session_ended; DROP INDEX gap_over; DROP INDEX endpoint_pause_open; \
         DROP TABLE usage_quarter; DROP TABLE usage_all; DROP TABLE audit; DROP TABLE block_change; DROP TABLE user_event; DROP TABLE heal; ALTER TABLE store DROP COLUMN told_change; DROP TABLE sent; DROP TABLE included; DROP INDEX session_of_user_ended; DROP INDEX session_continues;",
    )
    .unwrap();
    let kind: String = db
        .query_row("SELECT typeof(billable_bytes) FROM usage_day", [], |r| r.get(0))
        .unwrap();
    assert_eq!(kind, "real");
    drop(db);
    let store = Store::open(f.path(), Mode::Run).await.unwrap();
    let days = store.ledger().usage_by_day(0, u32::MAX, None, 10).await.unwrap();
    assert_eq!(days[0].usage.billable_bytes, i64::MAX as u64);
    assert_eq!(u64::from(days[0].day), T0 / 86_400_000);
}
