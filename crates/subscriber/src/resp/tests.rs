#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits { frame: 100, args: 4 };

/// A frame that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Array(Vec<Vec<u8>>),
    Line(char, Vec<u8>),
    Bulk(Option<Vec<u8>>),
    TooLarge,
}

fn own(frame: Frame<'_>) -> Owned {
    match frame {
        Frame::Array(args) => Owned::Array(args.iter().map(<[u8]>::to_vec).collect()),
        Frame::Simple(line) => Owned::Line('+', line.to_vec()),
        Frame::Error(line) => Owned::Line('-', line.to_vec()),
        Frame::Integer(line) => Owned::Line(':', line.to_vec()),
        Frame::Bulk(bulk) => Owned::Bulk(bulk.map(<[u8]>::to_vec)),
        Frame::TooLarge => Owned::TooLarge,
    }
}

/// Feeds pieces, and gives what came out and how large the buffer grew.
fn feed<'p>(
    mut reader: Reader,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<Owned>, Option<ProtocolError>, usize) {
    let (mut out, mut largest) = (Vec::new(), 0);
    for mut piece in pieces {
        while !piece.is_empty() {
            let space = reader.space();
            let n = space.len().min(piece.len());
            assert!(n > 0, "there is always space");
            space[..n].copy_from_slice(&piece[..n]);
            piece = &piece[n..];
            reader.filled(n);
            largest = largest.max(reader.buf.len());
            loop {
                match reader.next() {
                    Ok(Some(frame)) => out.push(own(frame)),
                    Ok(None) => break,
                    Err(e) => return (out, Some(e), largest),
                }
            }
        }
    }
    (out, None, largest)
}

fn requests(data: &[u8]) -> (Vec<Owned>, Option<ProtocolError>) {
    let (out, e, _) = feed(Reader::requests(SMALL), [data]);
    (out, e)
}

fn replies(data: &[u8]) -> (Vec<Owned>, Option<ProtocolError>) {
    let (out, e, _) = feed(Reader::replies(SMALL, 100), [data]);
    (out, e)
}

fn array(args: &[&[u8]]) -> Owned {
    Owned::Array(args.iter().map(|a| a.to_vec()).collect())
}

#[test]
fn requests_are_arrays_of_bulk_strings() {
    let (out, e) = requests(b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n*1\r\n$2\r\nxy");
    assert_eq!(
        out,
        [array(&[b"ECHO", b""]), array(&[]), array(&[]), array(&[b"PING"])]
    );
    assert_eq!(e, None);
    use ProtocolError::{Args, Length, TooLarge, Unexpected};
    for (bad, error) in [
        (
            &b"PING\r\n"[..],
            Unexpected {
                expected: '*',
                got: b'P',
            },
        ),
        (
            b"+OK\r\n",
            Unexpected {
                expected: '*',
                got: b'+',
            },
        ),
        (
            b"*1\r\n:1\r\n",
            Unexpected {
                expected: '$',
                got: b':',
            },
        ),
        (
            b"*1\r\n*1\r\n",
            Unexpected {
                expected: '$',
                got: b'*',
            },
        ),
        (b"*x\r\n", Length),
        (b"*\r\n", Length),
        (b"*1\n", Length),
        (b"*1\r\r", Length),
        (b"*1\r\n$-1\r\n", Length),
        (b"*1\r\n$1\r\nxyz", Length),
        (b"*0000000000000001", Length),
        (b"*5\r\n", Args),
        (b"*999999999999999\r\n", Args),
        (b"*1\r\n$93\r\n", TooLarge),
        (b"*1\r\n$999999999999999\r\n", TooLarge),
    ] {
        assert_eq!(requests(bad), (vec![], Some(error)), "{}", bad.escape_ascii());
    }
}

#[test]
fn the_largest_frame_allowed_is_read() {
    // 4 + 5 + 89 + 2 = 100
    let whole = [b"*1\r\n$89\r\n".as_slice(), &[b'x'; 89], b"\r\n"].concat();
    assert_eq!(requests(&whole), (vec![array(&[&[b'x'; 89]])], None));
    let larger = [b"*1\r\n$90\r\n".as_slice(), &[b'x'; 90], b"\r\n"].concat();
    assert_eq!(requests(&larger), (vec![], Some(ProtocolError::TooLarge)));
}

#[test]
fn replies_of_redis() {
    let (out, e) = replies(
        b"+OK\r\n-ERR no\r\n:42\r\n$2\r\nhi\r\n$-1\r\n*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n*2\r\n$-1\r\n$1\r\na\r\n",
    );
    assert_eq!(e, None);
    assert_eq!(
        out,
        [
            Owned::Line('+', b"OK".to_vec()),
            Owned::Line('-', b"ERR no".to_vec()),
            Owned::Line(':', b"42".to_vec()),
            Owned::Bulk(Some(b"hi".to_vec())),
            Owned::Bulk(None),
            array(&[b"psubscribe", b"*", b"1"]),
            array(&[b"", b"a"]),
        ]
    );
    assert_eq!(
        replies(&[b"+".as_slice(), &[b'x'; 200]].concat()).1,
        Some(ProtocolError::TooLarge)
    );
    assert_eq!(replies(b"+OK\rx").1, Some(ProtocolError::Length));
    assert_eq!(
        replies(b"%1\r\n").1,
        Some(ProtocolError::Unexpected {
            expected: '*',
            got: b'%'
        })
    );
}

#[test]
fn what_is_too_large_from_redis_is_passed_over_without_being_kept() {
    let huge = vec![b'x'; 1_000_000];
    let data = [
        b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1000000\r\n".as_slice(),
        &huge,
        b"\r\n$2\r\nhi\r\n+OK\r\n$1000000\r\n",
        &huge,
        b"\r\n*3\r\n$1\r\na\r\n$200\r\n",
        &huge[..200],
        b"\r\n:5\r\n+OK\r\n",
    ]
    .concat();
    for size in [1, 7, 4096, data.len()] {
        let (out, e, largest) = feed(Reader::replies(SMALL, 100), data.chunks(size));
        assert_eq!(e, None);
        let ok = Owned::Line('+', b"OK".to_vec());
        assert_eq!(
            out,
            [Owned::TooLarge, ok.clone(), Owned::TooLarge, Owned::TooLarge, ok]
        );
        assert!(largest <= 100 + HEADER, "{largest}");
    }
}

#[test]
fn the_buffer_grows_only_where_pieces_fill_it() {
    let limits = Limits { frame: 8192, args: 4 };
    let one = b"*1\r\n$4\r\nPING\r\n";
    let (out, _, largest) = feed(Reader::replies(limits, 65536), [one.as_slice(); 10]);
    assert_eq!((out.len(), largest), (10, 4096));
    let many = one.repeat(100_000);
    let (out, _, largest) = feed(Reader::replies(limits, 65536), [many.as_slice()]);
    assert_eq!((out.len(), largest), (100_000, 65536));
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend(
            format!("${}\r\n", arg.len())
                .bytes()
                .chain(arg.iter().copied())
                .chain(*b"\r\n"),
        );
    }
    out
}

/// Cuts at the given places.
fn cut<'d>(data: &'d [u8], cuts: &[usize]) -> Vec<&'d [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|c| c % (data.len() + 1)).collect();
    at.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in at.into_iter().chain([data.len()]) {
        pieces.push(&data[from..to]);
        from = to;
    }
    pieces
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..16), 1..4), 0..20),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let data: Vec<u8> = commands.iter().flat_map(|c| encode(c)).collect();
        let want: Vec<Owned> = commands.into_iter().map(Owned::Array).collect();
        for reader in [Reader::requests(SMALL), Reader::replies(SMALL, 1000)] {
            let (out, e, _) = feed(reader, cut(&data, &cuts));
            prop_assert_eq!(&out, &want);
            prop_assert_eq!(e, None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[*$:+-][0-9]{0,3}\r\n".prop_map(String::into_bytes),
        ], 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let data = pieces.concat();
        for make in [|| Reader::requests(SMALL), || Reader::replies(SMALL, 100)] {
            let whole = feed(make(), [data.as_slice()]);
            let cut = feed(make(), cut(&data, &cuts));
            prop_assert_eq!(&whole.0, &cut.0);
            prop_assert_eq!(whole.1, cut.1);
            prop_assert!(whole.2.max(cut.2) <= 100 + HEADER);
        }
    }
}
