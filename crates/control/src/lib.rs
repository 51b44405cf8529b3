//! Internal to turnhook: this Rust API is no promise, and changes with any version.
//!
//! Acting on coturn: ending an allocation by coturn's CLI, and refusing new ones by the [`gate`].
//!
//! Whom to end, and why, is decided elsewhere. What is certain here is that nothing else can happen: the three commands
//! that [`Connection`] can say are the only ones that there are (`ps NAME`, `cs ID`, `pc`), and an allocation can be
//! ended only after the CLI itself has shown that its number, its username, its realm and its client's address are
//! those of the allocation that was meant, and that the server that answers is the one that has it.
//!
//! ```text
//! Connection::open   banner (the version), password, `pc` (which server this is)
//!      │
//!      ├── find(&Target)  `ps NAME`  ──▶ Search::Found(Found) │ Gone │ Mobile │ WrongServer │ Unlisted
//!      │
//!      └── end(Found)     `cs ID`    ──▶ said; the stream's `deleted` confirms it, and not the CLI, which never does
//! ```
//!
//! Which coturn answers is known by its banner; 4.13 is the first that no stranger can crash by a name:
//!
//! ```
//! use turnhook_control::Version;
//!
//! let debian: Version = "4.6.1".parse()?;
//! assert!(debian < Version::SOUND && "4.17".parse::<Version>()? > Version::SOUND);
//! # Ok::<(), &'static str>(())
//! ```

mod command;
mod connection;
mod coturn;
mod error;
pub mod gate;
mod listing;
mod target;

pub use connection::{Config, Connection, Found, Search};
pub use coturn::{Coturn, Version};
pub use error::Error;
pub use target::Target;
