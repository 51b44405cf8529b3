//! What retention removes in the same words from both databases.

/// Trims the small tables: what was over before value 1, at most value 2 rows of each.
pub(crate) const TRIM_SMALL: [&str; 4] = [
    "DELETE FROM gap WHERE id IN (SELECT id FROM gap WHERE to_at < ?1 ORDER BY id LIMIT ?2)",
    "DELETE FROM unattributed WHERE id IN (SELECT id FROM unattributed ORDER BY id LIMIT ?2) AND at < ?1",
    "DELETE FROM endpoint_pause WHERE id IN (SELECT id FROM endpoint_pause WHERE to_at < ?1 ORDER BY id LIMIT ?2)",
    "DELETE FROM replay WHERE id IN (SELECT id FROM replay ORDER BY id LIMIT ?2) AND at < ?1",
];

/// The same of what people did, which stays for longer.
pub(crate) const TRIM_AUDIT: &str =
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?2) AND at < ?1";
