//! What a Redis, or whoever answers in its place, may send to a subscription: never a panic, bounded memory, and the
//! pieces make no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnhook_subscriber::resp::{Frame, Limits, ProtocolError, Reader};

const LIMITS: Limits = Limits { frame: 512, args: 8 };

fn read(data: &[u8], piece: usize) -> (Vec<String>, Option<ProtocolError>) {
    let mut reader = Reader::replies(LIMITS, 1024);
    let mut frames = Vec::new();
    for mut piece in data.chunks(piece) {
        while !piece.is_empty() {
            let space = reader.space();
            let n = space.len().min(piece.len());
            assert!(n > 0 && space.len() <= 1024 + 64);
            space[..n].copy_from_slice(&piece[..n]);
            reader.filled(n);
            piece = &piece[n..];
            loop {
                match reader.next() {
                    Ok(Some(Frame::Array(args))) => frames.push(format!("{:?}", args.iter().collect::<Vec<_>>())),
                    Ok(Some(frame)) => frames.push(format!("{frame:?}")),
                    Ok(None) => break,
                    Err(e) => return (frames, Some(e)),
                }
            }
        }
    }
    (frames, None)
}

// Input: one byte for the size of the pieces, then what is sent.
fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    assert_eq!(read(data, usize::from(first) + 1), read(data, data.len().max(1)));
});
