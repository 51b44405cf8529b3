//! What a stranger may send to the listener, in pieces: never a panic, never more memory than the limits allow,
//! nothing heard without the password, and the pieces make no difference.
#![no_main]

use std::{net::IpAddr, sync::Arc};

use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use turnhook_subscriber::{
    direct::command::{Credentials, Effect, Replies, Session},
    resp::{Frame, Limits, Reader},
};

const LIMITS: Limits = Limits { frame: 512, args: 8 };
const REPLIES: usize = 1024;

/// A channel, and what was published on it.
type Message = (Vec<u8>, Vec<u8>);

/// All that came of it: messages, and whether the connection was closed.
fn serve(data: &[u8], piece: usize, password: bool) -> (Vec<Message>, bool) {
    let password = password.then(|| SecretString::from("pw"));
    let mut session = Session::new(IpAddr::from([127, 0, 0, 1]), Arc::new(Credentials { user: None, password }));
    let mut reader = Reader::requests(LIMITS);
    let mut replies = Replies::new(REPLIES);
    let mut heard = Vec::new();
    for mut piece in data.chunks(piece) {
        while !piece.is_empty() {
            let space = reader.space();
            let n = space.len().min(piece.len());
            assert!(n > 0 && space.len() <= LIMITS.frame + 64);
            space[..n].copy_from_slice(&piece[..n]);
            reader.filled(n);
            piece = &piece[n..];
            loop {
                let args = match reader.next() {
                    Ok(Some(Frame::Array(args))) => args,
                    Ok(Some(_)) => unreachable!("requests are arrays"),
                    Ok(None) => break,
                    Err(_) => return (heard, true),
                };
                assert!(args.len() <= LIMITS.args);
                let authenticated = session.authenticated();
                match session.handle(&args, &mut replies) {
                    Effect::Message { channel, payload } => {
                        assert!(authenticated);
                        heard.push((channel.to_vec(), payload.to_vec()));
                    }
                    Effect::Keys | Effect::Identified | Effect::Tool => assert!(authenticated),
                    // Lets nobody in. Who is in stays in, as with Redis, whatever password it gives then.
                    Effect::Refused(_) => assert_eq!(session.authenticated(), authenticated),
                    Effect::Close => return (heard, true),
                    Effect::None => {}
                }
                if session.is_hopeless() {
                    return (heard, true);
                }
                assert!(replies.pending().len() <= REPLIES);
                if heard.len() % 2 == 0 {
                    replies.written(replies.pending().len() / 2);
                }
            }
        }
    }
    let _ = session.server();
    (heard, false)
}

// Input: one byte for the size of the pieces and whether there is a password, then what is sent.
fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    let password = first & 1 == 1;
    let pieces = serve(data, usize::from(first / 2) + 1, password);
    assert_eq!(pieces, serve(data, data.len().max(1), password));
});
