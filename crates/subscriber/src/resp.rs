//! A reader of RESP2, the protocol of Redis, for what a subscription and the listener receive.
//!
//! Own code because this is the hot path (`redis-protocol` takes 0.9 µs a message, this a fifth of that: `cargo
//! bench`) and because limits must hold before memory is taken: a length is checked when it is declared, and the
//! buffer never grows beyond one frame of the allowed size.

/// What a reader accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest frame, in bytes, framing included.
    pub frame: usize,
    /// The most elements of an array.
    pub args: usize,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A client: arrays of bulk strings, and nothing else. A frame too large is an error.
    Requests,
    /// Redis: arrays and single replies. A frame too large is passed over, for anybody may publish one.
    Replies,
}

/// What cannot be read on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not RESP2; or an inline command, which is not accepted here.
    #[error("Protocol error: expected '{expected}', got '{}'", got.escape_ascii())]
    Unexpected {
        /// The marker that should have come.
        expected: char,
        /// The byte that came.
        got: u8,
    },
    /// A length that is no number.
    #[error("Protocol error: invalid length")]
    Length,
    /// More elements than allowed.
    #[error("Protocol error: too many arguments")]
    Args,
    /// A larger frame than allowed.
    #[error("Protocol error: too large")]
    TooLarge,
}

/// One frame, borrowed from the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// An array of strings (or, from Redis, numbers as text); empty for an empty or null one.
    Array(Args<'a>),
    /// `+…`
    Simple(&'a [u8]),
    /// `-…`
    Error(&'a [u8]),
    /// `:…`, as text.
    Integer(&'a [u8]),
    /// `$…`; `None` for a null.
    Bulk(Option<&'a [u8]>),
    /// A frame larger than allowed came and went.
    TooLarge,
}

/// The elements of an array.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [(usize, usize)],
}

impl<'a> Args<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The element, or an empty one beyond the end.
    #[must_use]
    #[inline]
    pub fn get(&self, i: usize) -> &'a [u8] {
        self.spans
            .get(i)
            .and_then(|&(from, to)| self.buf.get(from..to))
            .unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let args = *self;
        (0..args.len()).map(move |i| args.get(i))
    }
}

/// What [`Reader::parse`] found, by position, so that the buffer stays free to be borrowed.
enum Parsed {
    Incomplete,
    Array,
    Line(u8, usize, usize),
    Bulk(Option<(usize, usize)>),
    /// Declared larger than allowed: to be passed over.
    Oversize(Skip),
}

/// What is left to pass over of a frame that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Skip {
    /// Bytes to drop before anything is looked at again.
    bytes: u64,
    /// Elements after those.
    elements: usize,
}

/// Reads frames out of a stream that comes in pieces.
#[derive(Debug)]
pub struct Reader {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// The buffer may grow to this while pieces keep filling it.
    most: usize,
    spans: Vec<(usize, usize)>,
    skip: Option<Skip>,
    role: Role,
    limits: Limits,
}

/// A length is never longer than this, marker and line end included.
const HEADER: usize = 24;

/// Where a buffer starts.
const FIRST: usize = 4096;

impl Reader {
    /// Reads what a client sends: arrays of bulk strings, no inline commands.
    #[must_use]
    pub fn requests(limits: Limits) -> Reader {
        Reader::new(Role::Requests, limits, limits.frame)
    }

    /// Reads what Redis sends; takes in up to `most` bytes at once where they come fast.
    #[must_use]
    pub fn replies(limits: Limits, most: usize) -> Reader {
        Reader::new(Role::Replies, limits, most)
    }

    fn new(role: Role, limits: Limits, most: usize) -> Reader {
        let most = most.max(limits.frame).max(HEADER);
        Reader {
            buf: vec![0; FIRST.min(most)],
            start: 0,
            end: 0,
            most,
            spans: Vec::new(),
            skip: None,
            role,
            limits,
        }
    }

    /// From now on these limits hold, and the buffer may grow to `most`.
    pub fn set_limits(&mut self, limits: Limits, most: usize) {
        self.limits = limits;
        self.most = most.max(limits.frame).max(self.most);
    }

    /// Where the next piece goes; never empty. To be called when [`Reader::next`] has given all there is.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            // What is left is part of one frame: moving it is cheap, and the next piece can be large.
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buf.len() {
            self.grow();
        }
        self.buf.get_mut(self.end..).unwrap_or_default()
    }

    fn grow(&mut self) {
        // A frame within its limit fits into `most`. Only the length of an element that will be found too
        // large may begin beyond it, so at most one header's room is ever added.
        let len = self.buf.len();
        self.buf.resize((len * 2).min(self.most).max(len + HEADER), 0);
    }

    /// Takes note that the first `n` bytes of [`Reader::space`] were filled.
    pub fn filled(&mut self, n: usize) {
        let full = self.end + n >= self.buf.len();
        self.end = (self.end + n).min(self.buf.len());
        if full && self.buf.len() < self.most {
            // They come faster than they are taken: take more at once.
            self.grow();
        }
    }

    /// Bytes that were filled in and not taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.end - self.start
    }

    /// The beginning of a frame whose rest has not come; after [`Reader::next`] has given all there is.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes in what another reader had not got to.
    pub fn go_on_with(&mut self, mut unread: &[u8]) {
        while !unread.is_empty() {
            let space = self.space();
            let n = space.len().min(unread.len());
            let (now, later) = unread.split_at(n);
            space.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled(n);
            unread = later;
        }
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// Where the stream is not RESP2 or exceeds the limits. It cannot be read on from there.
    #[allow(
        clippy::should_implement_trait,
        reason = "a frame borrows the reader: no Iterator can say that"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, ProtocolError> {
        if self.skip.is_some() {
            return Ok(self.pass_over()?.then_some(Frame::TooLarge));
        }
        match self.parse()? {
            Parsed::Incomplete => Ok(None),
            Parsed::Array => Ok(Some(Frame::Array(Args {
                buf: &self.buf,
                spans: &self.spans,
            }))),
            Parsed::Line(marker, from, to) => {
                let line = self.buf.get(from..to).unwrap_or_default();
                Ok(Some(match marker {
                    b'+' => Frame::Simple(line),
                    b'-' => Frame::Error(line),
                    _ => Frame::Integer(line),
                }))
            }
            Parsed::Bulk(span) => Ok(Some(Frame::Bulk(
                span.and_then(|(from, to)| self.buf.get(from..to)),
            ))),
            Parsed::Oversize(skip) => {
                if self.role == Role::Requests {
                    return Err(ProtocolError::TooLarge);
                }
                self.skip = Some(skip);
                Ok(self.pass_over()?.then_some(Frame::TooLarge))
            }
        }
    }

    #[inline]
    fn parse(&mut self) -> Result<Parsed, ProtocolError> {
        let data = self.buf.get(..self.end).unwrap_or_default();
        let Some(&marker) = data.get(self.start) else {
            return Ok(Parsed::Incomplete);
        };
        let frame_end = self.start.saturating_add(self.limits.frame);
        if marker != b'*' {
            if self.role == Role::Requests {
                return Err(ProtocolError::Unexpected {
                    expected: '*',
                    got: marker,
                });
            }
            return self.parse_single(marker);
        }
        let Some((count, mut pos)) = header(data, self.start)? else {
            return Ok(Parsed::Incomplete);
        };
        self.spans.clear();
        let Ok(count) = usize::try_from(count) else {
            self.start = pos;
            return Ok(Parsed::Array);
        };
        if count > self.limits.args {
            return Err(ProtocolError::Args);
        }
        for i in 0..count {
            let Some(&marker) = data.get(pos) else {
                return Ok(Parsed::Incomplete);
            };
            let (from, to) = match marker {
                b'$' => {
                    let Some((len, from)) = header(data, pos)? else {
                        return Ok(Parsed::Incomplete);
                    };
                    match u64::try_from(len) {
                        Ok(len) if len <= frame_end.saturating_sub(from + 2) as u64 => {
                            (from, from + usize::try_from(len).unwrap_or(usize::MAX))
                        }
                        Ok(len) => {
                            let bytes = (from - self.start) as u64 + len + 2;
                            return Ok(Parsed::Oversize(Skip {
                                bytes,
                                elements: count - i - 1,
                            }));
                        }
                        // A null has neither bytes nor a line end.
                        Err(_) if self.role == Role::Replies => {
                            self.spans.push((from, from));
                            pos = from;
                            continue;
                        }
                        Err(_) => return Err(ProtocolError::Length),
                    }
                }
                b':' | b'+' if self.role == Role::Replies => {
                    let Some(to) = line_end(data, pos + 1, frame_end)? else {
                        return Ok(Parsed::Incomplete);
                    };
                    (pos + 1, to)
                }
                got => return Err(ProtocolError::Unexpected { expected: '$', got }),
            };
            match data.get(to..to + 2) {
                None => return Ok(Parsed::Incomplete),
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::Length),
            }
            self.spans.push((from, to));
            pos = to + 2;
        }
        self.start = pos;
        Ok(Parsed::Array)
    }

    fn parse_single(&mut self, marker: u8) -> Result<Parsed, ProtocolError> {
        let data = self.buf.get(..self.end).unwrap_or_default();
        let frame_end = self.start.saturating_add(self.limits.frame);
        match marker {
            b'+' | b'-' | b':' => {
                let from = self.start + 1;
                let Some(to) = line_end(data, from, frame_end)? else {
                    return Ok(Parsed::Incomplete);
                };
                self.start = to + 2;
                Ok(Parsed::Line(marker, from, to))
            }
            b'$' => {
                let Some((len, from)) = header(data, self.start)? else {
                    return Ok(Parsed::Incomplete);
                };
                let Ok(len) = u64::try_from(len) else {
                    self.start = from;
                    return Ok(Parsed::Bulk(None));
                };
                if len > frame_end.saturating_sub(from + 2) as u64 {
                    let bytes = (from - self.start) as u64 + len + 2;
                    return Ok(Parsed::Oversize(Skip { bytes, elements: 0 }));
                }
                let to = from + usize::try_from(len).unwrap_or(usize::MAX);
                match data.get(to..to + 2) {
                    None => Ok(Parsed::Incomplete),
                    Some(b"\r\n") => {
                        self.start = to + 2;
                        Ok(Parsed::Bulk(Some((from, to))))
                    }
                    Some(_) => Err(ProtocolError::Length),
                }
            }
            got => Err(ProtocolError::Unexpected { expected: '*', got }),
        }
    }

    /// Drops what has come of a frame that is too large; whether that was the last of it.
    fn pass_over(&mut self) -> Result<bool, ProtocolError> {
        while let Some(skip) = &mut self.skip {
            let here = skip.bytes.min((self.end - self.start) as u64);
            self.start += usize::try_from(here).unwrap_or_default();
            skip.bytes -= here;
            if skip.bytes > 0 {
                return Ok(false);
            }
            if skip.elements == 0 {
                self.skip = None;
                return Ok(true);
            }
            let data = self.buf.get(..self.end).unwrap_or_default();
            let Some(&marker) = data.get(self.start) else {
                return Ok(false);
            };
            let Some((number, from)) = header(data, self.start)? else {
                return Ok(false);
            };
            skip.elements -= 1;
            skip.bytes = (from - self.start) as u64;
            match marker {
                b'$' => skip.bytes += u64::try_from(number).map_or(0, |len| len + 2),
                b':' => {}
                got => return Err(ProtocolError::Unexpected { expected: '$', got }),
            }
        }
        Ok(true)
    }
}

/// The number after the marker at `pos`, and where the line after it begins.
#[inline]
fn header(data: &[u8], pos: usize) -> Result<Option<(i64, usize)>, ProtocolError> {
    let line = data.get(pos + 1..).unwrap_or_default();
    let (negative, digits) = match line.first() {
        Some(b'-') => (true, line.get(1..).unwrap_or_default()),
        _ => (false, line),
    };
    let mut n = 0i64;
    for (i, &c) in digits.iter().enumerate() {
        let d = c.wrapping_sub(b'0');
        if d <= 9 {
            // Beyond 15 digits lies nothing that anybody means, and below them nothing overflows.
            if i >= 15 {
                return Err(ProtocolError::Length);
            }
            n = n * 10 + i64::from(d);
            continue;
        }
        if c != b'\r' || i == 0 {
            return Err(ProtocolError::Length);
        }
        return match digits.get(i + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((
                if negative { -n } else { n },
                pos + 1 + usize::from(negative) + i + 2,
            ))),
            Some(_) => Err(ProtocolError::Length),
        };
    }
    Ok(None)
}

/// Where the line that starts at `from` ends; an error where it would pass `limit`.
fn line_end(data: &[u8], from: usize, limit: usize) -> Result<Option<usize>, ProtocolError> {
    match memchr::memchr(b'\r', data.get(from..).unwrap_or_default()) {
        Some(i) if from + i < limit => match data.get(from + i + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(from + i)),
            Some(_) => Err(ProtocolError::Length),
        },
        None if data.len() < limit => Ok(None),
        _ => Err(ProtocolError::TooLarge),
    }
}

#[cfg(test)]
mod tests;
