//! Finds the line of a key, and the known key nearest to an unknown one.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::DEFAULT_TOML;

/// One step of a key's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A path as people write it: `endpoint[0].retry.max`.
pub(super) fn display(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// The line of an offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// What is wrong with a file that is not TOML: a line, and why.
pub(super) fn syntax_error(text: &str, error: &toml::de::Error) -> (Option<usize>, String) {
    let line = error.span().map(|span| line_of(text, span.start));
    (line, error.message().trim().replace('\n', "; "))
}

/// Whether the whole of `path` stands in the file.
pub(super) fn stands(text: &str, path: &[Step]) -> bool {
    found(text, path).is_some_and(|(depth, _)| depth == path.len())
}

/// The line of the deepest part of `path` that stands in the file.
pub(super) fn line(text: &str, path: &[Step]) -> Option<usize> {
    found(text, path).map(|(_, offset)| line_of(text, offset))
}

/// How many steps of `path` stand in the file, and where the last of them does.
fn found(text: &str, path: &[Step]) -> Option<(usize, usize)> {
    let root = DeTable::parse(text).ok()?;
    let mut table = Some(root.get_ref());
    let mut array: Option<&[Spanned<DeValue<'_>>]> = None;
    let mut found = None;
    let mut depth = 0;
    for step in path {
        let (offset, value) = match step {
            Step::Key(name) => {
                let Some((key, value)) =
                    table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name.as_str()))
                else {
                    break;
                };
                (key.span().start, value)
            }
            Step::Index(index) => {
                let Some(value) = array.and_then(|array| array.get(*index)) else {
                    break;
                };
                (value.span().start, value)
            }
        };
        found = Some(offset);
        depth += 1;
        table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
        array = match value.get_ref() {
            DeValue::Array(array) => Some(&**array),
            _ => None,
        };
    }
    found.map(|offset| (depth, offset))
}

/// Keys of [[endpoint]] whose values are tables.
const INLINE: [&str; 4] = ["retry", "include", "meters", "batch"];

/// A key of the configuration: the table that it belongs to (empty at the top) and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownKey {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
}

/// Every key, as `default.toml` lists them, commented out or not.
pub(super) fn known_keys() -> Vec<KnownKey> {
    let mut table = "";
    let mut keys: Vec<KnownKey> = Vec::new();
    for line in DEFAULT_TOML.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_matches(['[', ']']);
            continue;
        }
        let Some((name, value)) = line.split_once(" = ") else {
            continue;
        };
        let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_name && !keys.contains(&KnownKey { table, name }) {
            keys.push(KnownKey { table, name });
            // Those whose values are tables with keys of their own; those of `labels` and the like are the operator's.
            if INLINE.contains(&name) {
                let inner = value.trim_matches(['[', ']', '{', '}', ' ']).split(", ");
                keys.extend(
                    inner
                        .filter_map(|pair| pair.split_once(" = "))
                        .map(|(inner, _)| KnownKey {
                            table: name,
                            name: inner,
                        }),
                );
            }
        }
    }
    keys
}

/// Every table, in the order in which `default.toml` has them.
pub(super) fn tables() -> Vec<&'static str> {
    let mut tables: Vec<&str> = Vec::new();
    for header in headers() {
        let table = header.trim_matches(['[', ']']);
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    tables
}

/// Whether there can be several of a table: `[[source]]`.
pub(super) fn is_list(table: &str) -> bool {
    headers().any(|header| header.starts_with("[[") && header.trim_matches(['[', ']']) == table)
}

fn headers() -> impl Iterator<Item = &'static str> {
    DEFAULT_TOML
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .filter(|line| line.starts_with('['))
}

/// What to say about an unknown key of `table`: the nearest one there, or the table that has it.
pub(super) fn advice(table: &str, unknown: &str) -> String {
    let keys = known_keys();
    let siblings: Vec<&str> = keys
        .iter()
        .filter(|key| key.table == table)
        .map(|key| key.name)
        .chain(tables().into_iter().filter(|_| table.is_empty()))
        .collect();
    let nearest = siblings
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, unknown), *name))
        .min()
        // Beyond a third of its letters a guess confuses more than it helps.
        .filter(|(distance, name)| *distance <= name.len().max(unknown.len()).div_ceil(3));
    if let Some((_, name)) = nearest {
        return format!("unknown key; did you mean `{name}`?");
    }
    if let Some(key) = keys.iter().find(|key| key.name == unknown) {
        return match key.table {
            "" => {
                format!("unknown key here; `{unknown}` stands at the top of the file, before the first table")
            }
            list if is_list(list) => format!("unknown key here; `{unknown}` belongs to [[{list}]]"),
            inner if INLINE.contains(&inner) => {
                format!("unknown key here; `{unknown}` belongs to `{inner}` of [[endpoint]]")
            }
            table => format!("unknown key here; `{unknown}` belongs to [{table}]"),
        };
    }
    format!("unknown key; known here: {}", siblings.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(keys: &[&str]) -> Vec<Step> {
        keys.iter()
            .map(|key| {
                key.parse()
                    .map_or_else(|_| Step::Key((*key).to_owned()), Step::Index)
            })
            .collect()
    }

    #[test]
    fn lines_are_those_a_person_would_look_at() {
        let text = "shutdown_grace = \"1s\"\n\n[[source]]\nname = \"a\"\n[[source]]\nname = \"b\"\n\n[[endpoint]]\nretry = { initial = \"1s\",\n  max = \"2s\" }\nsecrets = [\n  \"x\",\n  \"y\",\n]\n";
        assert_eq!(line(text, &path(&["shutdown_grace"])), Some(1));
        assert_eq!(line(text, &path(&["source", "1", "name"])), Some(6));
        assert_eq!(
            line(text, &path(&["source", "1", "listen"])),
            Some(5),
            "the table that lacks it"
        );
        assert_eq!(line(text, &path(&["endpoint", "0", "retry", "max"])), Some(10));
        assert_eq!(line(text, &path(&["endpoint", "0", "secrets", "1"])), Some(13));
        assert_eq!(line(text, &path(&["store", "path"])), None);
    }

    #[test]
    fn advice_for_unknown_keys() {
        assert_eq!(advice("source", "heel"), "unknown key; did you mean `heal`?");
        assert_eq!(advice("", "sources"), "unknown key; did you mean `source`?");
        assert_eq!(
            advice("retry", "maximum"),
            "unknown key; known here: initial, max, give_up_after, retry_after_max"
        );
        assert_eq!(
            advice("store", "linger"),
            "unknown key here; `linger` belongs to [session]"
        );
        assert_eq!(
            advice("log", "shutdown_grace"),
            "unknown key here; `shutdown_grace` stands at the top of the file, before the first table"
        );
    }
}
