//! The map from users (or realms, or labels) to a product's customers: a CSV file that is read again when it changes.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// A larger file is a slip of the pen.
const MOST: u64 = 256 << 20;

/// See the module.
#[derive(Debug)]
pub struct Customers {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    map: Arc<HashMap<String, String>>,
    /// Of the file as it was looked at last.
    seen: Option<(Option<SystemTime>, u64)>,
}

impl Customers {
    /// Reads a file. Its first line says which columns there are: `user,customer`, in any order, others are passed over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Customers, String> {
        let customers = Customers {
            path: path.to_path_buf(),
            state: Mutex::default(),
        };
        customers.reload()?;
        Ok(customers)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The customer of somebody.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.map.get(name).cloned()
    }

    /// Reads the file if it has changed. Whether it had. Blocks.
    ///
    /// # Errors
    /// What is wrong with it, once for each change; the map that was there stays.
    pub fn reload(&self) -> Result<bool, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let found = fs::metadata(&self.path).map(|file| (file.modified().ok(), file.len()));
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.seen.is_some() && state.seen == found.as_ref().ok().copied() {
                return Ok(false);
            }
            let gone = (None, u64::MAX);
            let seen = found.as_ref().ok().copied().unwrap_or(gone);
            if state.seen.replace(seen) == Some(gone) && seen == gone {
                return Ok(false);
            }
        }
        let (_, length) = found.map_err(|error| wrong(&error))?;
        if length > MOST {
            return Err(wrong(&"it is larger than 256 MiB"));
        }
        let map =
            parse(&fs::read(&self.path).map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).map = Arc::new(map);
        Ok(true)
    }
}

fn parse(text: &[u8]) -> Result<HashMap<String, String>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text);
    let headers = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| {
        let found = headers.iter().position(|header| header == name);
        found.ok_or_else(|| format!("its first line has no column `{name}`; write it as `user,customer`"))
    };
    let (user, customer) = (column("user")?, column("customer")?);
    let mut map = HashMap::new();
    for row in reader.records() {
        let row = row.map_err(|error| error.to_string())?;
        let line = row.position().map_or(0, csv::Position::line);
        let (Some(user), Some(customer)) = (row.get(user), row.get(customer)) else {
            return Err(format!("line {line} lacks a column"));
        };
        if user.is_empty() || customer.is_empty() {
            return Err(format!("line {line} has an empty user or customer"));
        }
        let before = map.insert(user.to_owned(), customer.to_owned());
        if before.is_some_and(|before| before != customer) {
            return Err(format!("line {line} gives {user:?} a second customer"));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_changes_and_kept_while_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("customers.csv");
        fs::write(&path, "customer,user\ncus_1,alice\n\"cus,2\",bob\n").unwrap();
        let customers = Customers::read(&path).unwrap();
        assert_eq!(customers.find("bob").as_deref(), Some("cus,2"));
        assert_eq!(customers.find("carol"), None);
        assert_eq!(customers.reload(), Ok(false));
        fs::write(&path, "user,customer\nalice,cus_1\nalice,cus_9\n").unwrap();
        let error = customers.reload().unwrap_err();
        assert!(error.contains("line 3") && error.contains("alice"), "{error}");
        assert_eq!(customers.reload(), Ok(false), "said once");
        assert_eq!(customers.find("bob").as_deref(), Some("cus,2"));
        fs::remove_file(&path).unwrap();
        customers.reload().unwrap_err();
        assert_eq!(customers.reload(), Ok(false), "said once");
        fs::write(&path, "user,customer\ncarol,cus_3\n").unwrap();
        assert_eq!(customers.reload(), Ok(true));
        assert_eq!(customers.find("carol").as_deref(), Some("cus_3"));
        assert!(parse(b"name,customer\n").unwrap_err().contains("user,customer"));
        assert!(parse(b"user,customer\nalice\n").unwrap_err().contains("line 2"));
        assert!(parse(b"user,customer\nalice,\n").unwrap_err().contains("line 2"));
    }
}
