//! The files of names: `name:role:hash`, one a line. A person's password is hashed by Argon2id, since people choose
//! them. A token has 256 random bits, which nobody guesses whatever the hash: it is looked up by its SHA-256.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tracing::warn;

use super::who::{Role, Who};

/// What a token begins with, so that it is known for one where it does not belong.
const TOKEN: &str = "tht_";
const SHA256: &str = "$sha256$";
/// Verified passwords that are remembered: a page has a dozen requests, and a hash is made to take time.
const REMEMBERED: usize = 256;
/// Less is guessed.
const SHORTEST: usize = 10;

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `users_file`.
    Users,
    /// `tokens_file`.
    Tokens,
}

/// What to do about a file that cannot be read.
fn cure(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "; make it: `turnhook admin user NAME --role viewer` prints a line for it, and `turnhook admin token NAME` one \
             for a file of tokens"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; let the user that turnhook runs as read it, and nobody else"
        }
        _ => "",
    }
}

/// What is wrong with a file. What stands in it is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}{}", cure(error))]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A line of it cannot be used.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// It lets nobody in.
    #[error("{path} names nobody: `turnhook admin {command} NAME --role viewer` makes a line for it")]
    Empty {
        /// The file.
        path: String,
        /// What makes one.
        command: &'static str,
    },
}

/// Why no line was made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The name.
    #[error("`{0}` is no name for this: 1 to 64 letters, digits, `.`, `_`, `-` and `@`")]
    Name(String),
    /// The password.
    #[error("the password is too short: {SHORTEST} characters at least")]
    Short,
    /// The hash.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// What a request brings.
pub(super) enum Given {
    User { name: String, password: SecretString },
    Token(SecretString),
}

struct Account {
    name: String,
    role: Role,
    hash: String,
}

/// A file, as it was when it was last read.
pub(super) struct Accounts {
    path: PathBuf,
    kind: Kind,
    /// So that what is remembered is of no use elsewhere.
    key: [u8; 32],
    loaded: Mutex<Loaded>,
}

struct Loaded {
    stamp: Option<Stamp>,
    accounts: Arc<Vec<Account>>,
    remembered: HashMap<[u8; 32], Who>,
}

#[derive(PartialEq, Eq)]
struct Stamp(SystemTime, u64);

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accounts").field(&self.path).finish()
    }
}

impl Accounts {
    pub(super) fn read(path: PathBuf, kind: Kind) -> Result<Accounts, AccountError> {
        let stamp = stamp(&path);
        let accounts = parse(&path, kind)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| AccountError::Unreadable {
            path: "the system's random numbers".to_owned(),
            error: std::io::Error::other(error.to_string()),
        })?;
        Ok(Accounts {
            path,
            kind,
            key,
            loaded: Mutex::new(Loaded {
                stamp,
                accounts: Arc::new(accounts),
                remembered: HashMap::new(),
            }),
        })
    }

    /// As the file is now. What is wrong with it later leaves those in who were.
    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.path);
        if now != loaded.stamp {
            loaded.stamp = now;
            match parse(&self.path, self.kind) {
                Ok(accounts) => {
                    loaded.accounts = Arc::new(accounts);
                    loaded.remembered.clear();
                }
                Err(error) => {
                    warn!(%error, "who may come in is as it was: the file has changed, and cannot be used");
                }
            }
        }
        loaded
    }

    /// Somebody who was let in before, or whose token is looked up at no cost.
    pub(super) fn known(&self, given: &Given) -> Option<Who> {
        let loaded = self.loaded();
        match given {
            Given::User { .. } => loaded.remembered.get(&self.remember_as(given)).cloned(),
            Given::Token(token) => {
                let hash = token_hash(token);
                let matches = |account: &&Account| bool::from(account.hash.as_bytes().ct_eq(hash.as_bytes()));
                loaded.accounts.iter().find(matches).map(Account::who)
            }
        }
    }

    /// Tries a password, which takes a while.
    pub(super) async fn tried(&self, given: Given) -> Option<Who> {
        let remembered_as = self.remember_as(&given);
        let Given::User { name, password } = given else {
            return None; // tokens are known or not
        };
        let accounts = Arc::clone(&self.loaded().accounts);
        let tried = Arc::clone(&accounts);
        let trying = tokio::task::spawn_blocking(move || {
            let account = tried.iter().find(|account| account.name == name);
            // As long for a name that there is not: how long it takes gives nothing away.
            let hash = account.or(tried.first())?.hash.as_str();
            let hash = PasswordHash::new(hash).ok()?;
            let matches = Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash);
            account.filter(|_| matches.is_ok()).map(Account::who)
        });
        let who = trying.await.ok().flatten()?;
        let mut loaded = self.loaded();
        // The file may have changed meanwhile.
        if Arc::ptr_eq(&loaded.accounts, &accounts) {
            if loaded.remembered.len() >= REMEMBERED {
                loaded.remembered.clear();
            }
            loaded.remembered.insert(remembered_as, who.clone());
        }
        Some(who)
    }

    fn remember_as(&self, given: &Given) -> [u8; 32] {
        let (name, secret) = match given {
            Given::User { name, password } => (name.as_str(), password),
            Given::Token(token) => ("", token),
        };
        let mut hash = Sha256::new_with_prefix(self.key);
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update(secret.expose_secret());
        hash.finalize().into()
    }
}

impl Account {
    fn who(&self) -> Who {
        Who {
            name: self.name.clone(),
            role: self.role,
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp(metadata.modified().ok()?, metadata.len()))
}

/// Whether a file can be used.
///
/// # Errors
/// Why not.
pub fn check_file(path: &Path, kind: Kind) -> Result<(), AccountError> {
    parse(path, kind).map(|_| ())
}

fn parse(path: &Path, kind: Kind) -> Result<Vec<Account>, AccountError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| AccountError::Unreadable {
        path: shown.clone(),
        error,
    })?;
    let mut accounts: Vec<Account> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let account = account(line, kind).and_then(|account| {
            match accounts.iter().any(|one| one.name == account.name) {
                true => Err(format!("`{}` stands there twice; keep one", account.name)),
                false => Ok(account),
            }
        });
        accounts.push(account.map_err(|problem| AccountError::Line {
            path: shown.clone(),
            line: index + 1,
            problem,
        })?);
    }
    if accounts.is_empty() {
        let command = kind.command();
        return Err(AccountError::Empty { path: shown, command });
    }
    Ok(accounts)
}

impl Kind {
    fn command(self) -> &'static str {
        match self {
            Kind::Users => "user",
            Kind::Tokens => "token",
        }
    }
}

fn account(line: &str, kind: Kind) -> Result<Account, String> {
    let mut parts = line.splitn(3, ':');
    let (Some(name), Some(role), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("is not name:role:hash".to_owned());
    };
    if !is_name(name) {
        return Err("begins with no name: 1 to 64 letters, digits, `.`, `_`, `-` and `@`".to_owned());
    }
    let Ok(role) = role.parse() else {
        return Err(format!("the role of `{name}` is neither viewer nor operator"));
    };
    let command = kind.command();
    let made = format!(
        "`turnhook admin {command} {name} --role {}` makes the line",
        Role::as_str(role)
    );
    let usable = match kind {
        Kind::Users => PasswordHash::new(hash).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id"),
        Kind::Tokens => hash
            .strip_prefix(SHA256)
            .is_some_and(|rest| URL_SAFE_NO_PAD.decode(rest).is_ok_and(|bytes| bytes.len() == 32)),
    };
    if !usable {
        let wanted = match kind {
            Kind::Users => "$argon2id$…",
            Kind::Tokens => "$sha256$…",
        };
        return Err(format!("the hash of `{name}` is not one of {wanted}; {made}"));
    }
    Ok(Account {
        name: name.to_owned(),
        role,
        hash: hash.to_owned(),
    })
}

fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    (1..=64).contains(&name.chars().count()) && name.chars().all(fine)
}

fn token_hash(token: &SecretString) -> String {
    let hash = Sha256::digest(token.expose_secret());
    format!("{SHA256}{}", URL_SAFE_NO_PAD.encode(hash))
}

/// A line of `users_file`.
///
/// # Errors
/// The name or the password will not do.
pub fn make_user(name: &str, role: Role, password: &SecretString) -> Result<String, MakeError> {
    if !is_name(name) {
        return Err(MakeError::Name(name.to_owned()));
    }
    if password.expose_secret().chars().count() < SHORTEST {
        return Err(MakeError::Short);
    }
    let hash = Argon2::default()
        .hash_password(password.expose_secret().as_bytes())
        .map_err(|error| MakeError::Hash(error.to_string()))?;
    Ok(format!("{name}:{}:{hash}", role.as_str()))
}

/// A token, and its line of `tokens_file`.
///
/// # Errors
/// The name will not do.
pub fn make_token(name: &str, role: Role) -> Result<(SecretString, String), MakeError> {
    if !is_name(name) {
        return Err(MakeError::Name(name.to_owned()));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| MakeError::Hash(error.to_string()))?;
    let token = SecretString::from(format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode(random)));
    let line = format!("{name}:{}:{}", role.as_str(), token_hash(&token));
    Ok((token, line))
}

#[cfg(test)]
mod tests;
