//! One connection to coturn's CLI, logged in. coturn takes each segment that it is sent for one command, so there is
//! one write for each, and the next only after the prompt.

use std::{net::SocketAddr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use turnhook_reducer::message::AllocationId;

use crate::{
    Coturn, Error, Target,
    command::{Command, Name},
    coturn,
    listing::Listing,
};

/// The longest answer that is read: 300 sessions are 127 kB.
const ANSWER_MAX: usize = 1 << 20;

const PASSWORD_PROMPT: &[u8] = b"Enter password:";

/// Where a coturn's CLI is.
#[derive(Clone, Debug)]
pub struct Config {
    /// `cli-ip` and `cli-port`.
    pub address: SocketAddr,
    /// `cli-password`.
    pub password: SecretString,
    /// For each answer, from the command to its prompt.
    pub timeout: Duration,
}

/// An allocation that this connection's server has shown: the only thing that can be ended.
#[derive(Debug)]
pub struct Found(AllocationId);

/// What came of looking for an allocation.
#[derive(Debug)]
pub enum Search {
    /// It is there, and is the very one.
    Found(Found),
    /// It is not there; or its number is another one's by now.
    Gone,
    /// Its client can move (RFC 8016): coturn would only close its socket, and the client would go on with its ticket.
    Mobile,
    /// Another server answers here than the one that has it.
    WrongServer,
    /// There are more sessions of this name than the CLI lists, and it is not among those.
    Unlisted,
}

/// A connection to a coturn's CLI.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    timeout: Duration,
    coturn: Coturn,
}

impl Connection {
    /// Connects, logs in, and asks which server this is.
    ///
    /// # Errors
    /// Whatever keeps it from that. A wrong password is tried once: coturn ends a connection at the fifth.
    pub async fn open(config: &Config) -> Result<Connection, Error> {
        let address = config.address;
        let deadline = Instant::now() + config.timeout;
        let stream = match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(stream) => stream.map_err(|error| Error::Connect { address, error })?,
            Err(_) => {
                return Err(Error::Timeout {
                    address,
                    waiting_for: "a connection",
                });
            }
        };
        // A command that is held back for a larger segment would be waited for in vain.
        stream
            .set_nodelay(true)
            .map_err(|error| Error::Connect { address, error })?;
        let mut connection = Connection {
            stream,
            address,
            timeout: config.timeout,
            coturn: Coturn {
                version: None,
                listeners: Vec::new(),
                ports: Vec::new(),
            },
        };
        let banner = connection.greeting(deadline).await?;
        connection.log_in(&config.password).await?;
        let parameters = connection.ask(Command::Parameters).await?;
        let read = Coturn::read(coturn::version(&banner), &parameters);
        connection.coturn = read.ok_or(Error::Unreadable {
            address,
            what: "`pc` does not say where the server listens",
        })?;
        Ok(connection)
    }

    /// Who answers here.
    #[must_use]
    pub fn coturn(&self) -> &Coturn {
        &self.coturn
    }

    /// Looks for an allocation.
    ///
    /// # Errors
    /// [`Error::Name`], or the connection's: then it is of no more use.
    pub async fn find(&mut self, target: &Target) -> Result<Search, Error> {
        if target
            .server
            .as_ref()
            .is_some_and(|local| !self.coturn.answers_for(local))
        {
            return Ok(Search::WrongServer);
        }
        let name = Name::new(&target.username)?;
        let answer = self.ask(Command::Sessions(name)).await?;
        let listing = Listing::read(&answer).ok_or(Error::Unreadable {
            address: self.address,
            what: "`ps` gave no whole listing",
        })?;
        Ok(match listing.entries.iter().find(|entry| entry.is(target)) {
            Some(entry) if entry.mobile == Some(false) => Search::Found(Found(entry.id)),
            // Where it is not said that a client cannot move, it may.
            Some(_) => Search::Mobile,
            None if listing.cut => Search::Unlisted,
            None => Search::Gone,
        })
    }

    /// Ends it. coturn's answer is the same whatever came of it: the stream says that.
    ///
    /// # Errors
    /// The connection's: then it is of no more use, and whether the command arrived is not known.
    pub async fn end(&mut self, found: Found) -> Result<(), Error> {
        self.ask(Command::Cancel(found.0)).await.map(|_| ())
    }

    /// Whether it still stands, and leads to the same server.
    ///
    /// # Errors
    /// Where it does not: then it is of no more use.
    pub async fn look(&mut self) -> Result<(), Error> {
        let parameters = self.ask(Command::Parameters).await?;
        match Coturn::read(self.coturn.version, &parameters) {
            Some(coturn) if coturn == self.coturn => Ok(()),
            _ => Err(Error::Unreadable {
                address: self.address,
                what: "`pc` says something else than before",
            }),
        }
    }

    async fn greeting(&mut self, deadline: Instant) -> Result<Vec<u8>, Error> {
        let waiting_for = "its greeting";
        let has_come = |read: &[u8]| read.windows(PASSWORD_PROMPT.len()).any(|w| w == PASSWORD_PROMPT);
        let banner = self.read_until(has_come, deadline, waiting_for).await?;
        if banner.starts_with(b"TURN Server") {
            Ok(banner)
        } else {
            Err(Error::NoCoturn {
                address: self.address,
            })
        }
    }

    async fn log_in(&mut self, password: &SecretString) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        let line = [password.expose_secret().as_bytes(), b"\r\n"].concat();
        let waiting_for = "the password";
        self.write(&line, deadline, waiting_for).await?;
        let refused = |read: &[u8]| read.windows(PASSWORD_PROMPT.len()).any(|w| w == PASSWORD_PROMPT);
        let answer = self
            .read_until(|read| is_prompt(read) || refused(read), deadline, waiting_for)
            .await?;
        if refused(&answer) {
            return Err(Error::Password {
                address: self.address,
            });
        }
        Ok(())
    }

    async fn ask(&mut self, command: Command<'_>) -> Result<Vec<u8>, Error> {
        let deadline = Instant::now() + self.timeout;
        self.write(&command.bytes(), deadline, command.as_str()).await?;
        self.read_until(is_prompt, deadline, command.as_str()).await
    }

    async fn write(
        &mut self,
        bytes: &[u8],
        deadline: Instant,
        waiting_for: &'static str,
    ) -> Result<(), Error> {
        let address = self.address;
        match timeout_at(deadline, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::Closed { address, waiting_for }),
            Err(_) => Err(Error::Timeout { address, waiting_for }),
        }
    }

    async fn read_until(
        &mut self,
        is_whole: impl Fn(&[u8]) -> bool,
        deadline: Instant,
        waiting_for: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let address = self.address;
        let mut read = Vec::with_capacity(4096);
        loop {
            match timeout_at(deadline, self.stream.read_buf(&mut read)).await {
                Err(_) => return Err(Error::Timeout { address, waiting_for }),
                Ok(Err(_) | Ok(0)) => return Err(Error::Closed { address, waiting_for }),
                Ok(Ok(_)) if is_whole(&read) => return Ok(read),
                Ok(Ok(_)) if read.len() >= ANSWER_MAX => {
                    return Err(Error::TooLong { address, waiting_for });
                }
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// `> ` at the start of a line, with nothing after it. No line of an answer begins so, and none can be made to: names
/// have no newlines.
fn is_prompt(read: &[u8]) -> bool {
    read == b"> " || read.ends_with(b"\n> ")
}
