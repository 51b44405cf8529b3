//! All that can be said to coturn's CLI. Beside these commands stand some that stop the server, change its
//! configuration or write files; there is no value of this type that says one of them.

use turnhook_reducer::message::AllocationId;

use crate::Error;

/// The longest username of coturn's.
const NAME_MAX: usize = 512;

/// A username that is one word to the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// coturn itself refuses names with blanks or newlines. An empty one would list everybody, and 255 begins a command
    /// of telnet's.
    pub(crate) fn new(name: &'a [u8]) -> Result<Name<'a>, Error> {
        let clean = |b: &u8| *b > b' ' && !matches!(*b, b'"' | b'\'' | b'`' | 0x7f | 0xff);
        if name.is_empty() || name.len() > NAME_MAX || !name.iter().all(clean) {
            return Err(Error::Name);
        }
        Ok(Name(name))
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// The sessions of exactly this username.
    Sessions(Name<'a>),
    /// Ends one.
    Cancel(AllocationId),
    /// How the server is configured.
    Parameters,
}

impl Command<'_> {
    /// As it goes over the wire, in one write: coturn takes each segment for one command.
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Command::Sessions(name) => [b"ps ", name.bytes(), b"\r\n"].concat(),
            Command::Cancel(id) => format!("cs {id}\r\n").into_bytes(),
            Command::Parameters => b"pc\r\n".to_vec(),
        }
    }

    /// For errors.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Command::Sessions(_) => "ps",
            Command::Cancel(_) => "cs",
            Command::Parameters => "pc",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn nothing_but_three_commands_of_one_line_can_be_said() {
        for name in [
            b"ann".as_slice(),
            b"1795712096:cust_42",
            b"a/b<>:%s",
            b"\xc3\xa4",
            &[b'x'; 512],
        ] {
            let said = Command::Sessions(Name::new(name).unwrap()).bytes();
            assert_eq!(said, [b"ps ", name, b"\r\n"].concat());
        }
        assert_eq!(
            Command::Cancel(AllocationId(2)).bytes(),
            b"cs 000000000000000002\r\n"
        );
        assert_eq!(Command::Parameters.bytes(), b"pc\r\n");
        for name in [
            b"".as_slice(),
            b"a b",
            b"a\nstop",
            b"a\r",
            b"a\0",
            b"a\tb",
            b"a\"",
            b"\xff\xf4",
            &[b'x'; 513],
        ] {
            assert!(matches!(Name::new(name), Err(Error::Name)), "{name:?}");
        }
    }
}
