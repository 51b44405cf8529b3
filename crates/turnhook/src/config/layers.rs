//! The layers (defaults, file, environment), and what serde makes of them. figment merges them, and reads lists and tables
//! in a variable; where a value stands and what is wrong with it is our own, since its errors name neither line nor remedy.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::Serialized,
    value::{Dict, Value as FigmentValue},
};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::{
    ConfigError, DEFAULT_TOML, Origin, Problem,
    environment::{self, EnvValue},
    file::File,
    locate::{self, Step},
    search,
};

/// What a configuration is made of, besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The file's path as people call it, and its text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables, `TURNHOOK_…` or others.
    pub env: Vec<(String, String)>,
}

impl Input {
    /// Reads `path`; without one, the first of [`search::PLACES`] that is there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Input, ConfigError> {
        Ok(Input {
            file: search::read(path, &search::PLACES.map(Path::new))?,
            env: env.into_iter().collect(),
        })
    }
}

/// The merged values, and where they came from.
pub(super) struct Layers {
    pub(super) merged: Value,
    file: Option<(String, String)>,
    /// By path: the variable's name and its raw text.
    env: BTreeMap<String, EnvValue>,
    /// Of the environment, before anything was read.
    pub(super) warnings: Vec<Problem>,
}

impl Layers {
    pub(super) fn merge(input: &Input) -> Result<Layers, ConfigError> {
        let file = input
            .file
            .as_ref()
            .map(|(path, text)| (path.display().to_string(), text.clone()));
        let mut figment = Figment::new().merge(Serialized::defaults(parse(&None, DEFAULT_TOML)?));
        if let Some((_, text)) = &file {
            figment = figment.merge(Serialized::defaults(parse(&file, text)?));
        }
        let (env, warnings) = environment::variables(&input.env);
        for value in env.values().filter(|value| !value.is_in_a_list()) {
            let parsed: FigmentValue = value.raw.parse().unwrap_or_else(|never| match never {});
            let nested = value.path.iter().rev().fold(parsed, |inner, step| match step {
                Step::Key(key) => Dict::from([(key.clone(), inner)]).into(),
                Step::Index(_) => inner,
            });
            figment = figment.merge(Serialized::defaults(nested));
        }
        let mut merged: Value = figment.extract().map_err(|error| {
            // Only a variable that turns a table into something else gets here.
            ConfigError::Wrong(vec![Problem {
                origin: Origin::Nowhere,
                key: error.path.join("."),
                message: error.kind.to_string(),
            }])
        })?;
        for value in env.values().filter(|value| value.is_in_a_list()) {
            if let Err(message) = set(&mut merged, &value.path, &from_env(&value.raw)) {
                return Err(ConfigError::Wrong(vec![Problem {
                    origin: Origin::Env(value.variable.clone()),
                    key: locate::display(&value.path),
                    message,
                }]));
            }
        }
        Ok(Layers {
            merged,
            file,
            env,
            warnings,
        })
    }

    /// The types. Where the environment gave a number or a word like `true` and a string is wanted, the
    /// string is what stood there: a password of digits is a password.
    pub(super) fn read(&self) -> Result<File, ConfigError> {
        let mut merged = self.merged.clone();
        let mut as_text = HashSet::new();
        loop {
            let error = match serde_path_to_error::deserialize::<_, File>(&merged) {
                Ok(file) => return Ok(file),
                Err(error) => error,
            };
            let path = steps(error.path());
            let key = locate::display(&path);
            match self.env.get(&key) {
                Some(value)
                    if as_text.insert(key)
                        && set(&mut merged, &path, &Value::String(value.raw.clone())).is_ok() => {}
                _ => {
                    return Err(ConfigError::Wrong(vec![
                        self.explain(path, &error.into_inner().to_string()),
                    ]));
                }
            }
        }
    }

    /// serde's words, in ours.
    fn explain(&self, mut path: Vec<Step>, error: &str) -> Problem {
        let quoted = |prefix: &str| {
            error
                .strip_prefix(prefix)
                .and_then(|rest| rest.split('`').next())
                .map(str::to_owned)
        };
        let message = if let Some(unknown) = quoted("unknown field `") {
            if path.last() != Some(&Step::Key(unknown.clone())) {
                path.push(Step::Key(unknown.clone()));
            }
            let table = path.iter().rev().skip(1).find_map(|step| match step {
                Step::Key(name) => Some(name.as_str()),
                Step::Index(_) => None,
            });
            locate::advice(table.unwrap_or_default(), &unknown)
        } else if let Some(missing) = quoted("missing field `") {
            path.push(Step::Key(missing));
            "missing; it has no default".to_owned()
        } else if let Some(unknown) = quoted("unknown variant `") {
            let expected = error.split_once("expected ").map_or("", |(_, expected)| expected);
            format!(
                "`{unknown}` is not one of the choices: {}",
                expected.trim_start_matches("one of ")
            )
        } else {
            // "invalid type: integer `5`, expected a duration in quotes": the value is shown by its kind
            // alone, since it may be a secret in the wrong place.
            match error
                .strip_prefix("invalid type: ")
                .and_then(|rest| rest.split_once(", expected "))
            {
                Some(("map", "a sequence")) => {
                    let table = locate::display(&path);
                    format!(
                        "is written [{table}]; write [[{table}]], in double brackets: there can be several"
                    )
                }
                Some((found, expected)) => {
                    let kind = found.split([' ', '`', '"']).next().unwrap_or_default();
                    format!("expected {}, found {}", in_words(expected), in_words(kind))
                }
                None => match error
                    .strip_prefix("invalid value: integer ")
                    .and_then(|rest| rest.split_once(", expected "))
                {
                    Some((found, expected)) => format!("expected {}, found {found}", in_words(expected)),
                    None => error.to_owned(),
                },
            }
        };
        self.problem(&path, message)
    }

    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Where the file is.
    pub(super) fn file_path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| Path::new(path))
    }

    /// A problem with the value at `path`.
    pub(super) fn problem(&self, path: &[Step], message: String) -> Problem {
        Problem {
            origin: self.origin(path),
            key: locate::display(path),
            message,
        }
    }

    fn origin(&self, path: &[Step]) -> Origin {
        // The variable that set it, or set something around it.
        for length in (1..=path.len()).rev() {
            if let Some(value) = self.env.get(&locate::display(&path[..length])) {
                return Origin::Env(value.variable.clone());
            }
        }
        let stands = |text: &str| locate::stands(text, path);
        if !self.file.as_ref().is_some_and(|(_, text)| stands(text)) {
            // What the file does not have was made by a variable that sets something in it.
            let here = locate::display(path);
            let inside = |set: &&EnvValue| {
                let set = locate::display(&set.path);
                set.strip_prefix(&here)
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
            };
            if let Some(value) = self.env.values().find(inside) {
                return Origin::Env(value.variable.clone());
            }
        }
        match &self.file {
            Some((name, text)) => Origin::File {
                path: name.clone(),
                line: locate::line(text, path),
            },
            None => Origin::Nowhere,
        }
    }
}

/// serde's names of types, in those of whoever writes the file.
fn in_words(kind: &str) -> &str {
    match kind {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" | "integer" => "a whole number",
        "floating" | "f64" => "a number with a point",
        "a sequence" | "sequence" => "a list, like [\"…\"]",
        "a map" | "map" => "a table, like { key = \"…\" }",
        "a boolean" | "boolean" => "true or false",
        "string" | "a string" => "a text in quotes",
        "null" | "unit" => "nothing",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

fn parse(file: &Option<(String, String)>, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse::<toml::Table>().map_err(|error| {
        let (line, message) = locate::syntax_error(text, &error);
        let path = file.as_ref().map_or("default.toml", |(path, _)| path).to_owned();
        ConfigError::Wrong(vec![Problem {
            origin: Origin::File { path, line },
            key: String::new(),
            message,
        }])
    })
}

fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Lists, tables, numbers and `true` as figment reads them; the rest is a string.
fn from_env(raw: &str) -> Value {
    let value: FigmentValue = raw.parse().unwrap_or_else(|never| match never {});
    serde_json::to_value(&value).unwrap_or_else(|_| Value::String(raw.to_owned()))
}

/// Sets the value at `path`, making tables and growing lists by one where they lack. The error says what
/// is in the way.
fn set(root: &mut Value, path: &[Step], value: &Value) -> Result<(), String> {
    let mut at = root;
    for (depth, step) in path.iter().enumerate() {
        if at.is_null() {
            *at = match step {
                Step::Key(_) => Value::Object(serde_json::Map::new()),
                Step::Index(_) => Value::Array(Vec::new()),
            };
        }
        let here = locate::display(&path[..depth]);
        at = match (step, at) {
            (Step::Key(key), Value::Object(table)) => table.entry(key.clone()).or_insert(Value::Null),
            (Step::Index(index), Value::Array(list)) => {
                if *index > list.len() {
                    return Err(format!(
                        "there is no {here}[{}] before it; they are counted from 0",
                        list.len()
                    ));
                }
                if *index == list.len() {
                    list.push(Value::Null);
                }
                &mut list[*index]
            }
            (Step::Index(_), _) => return Err(format!("`{here}` is no list; leave the number out")),
            (Step::Key(_), _) => return Err(format!("`{here}` is no table")),
        };
    }
    *at = value.clone();
    Ok(())
}
