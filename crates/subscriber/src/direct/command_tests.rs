#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::Ipv4Addr;

use super::*;
use crate::resp::{Frame, Limits, Reader};

fn session(user: Option<&str>, password: Option<&str>) -> Session {
    let credentials = Credentials {
        user: user.map(str::to_owned),
        password: password.map(SecretString::from),
    };
    Session::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Arc::new(credentials))
}

/// Says something, and gives the answer and what came of it.
fn say(session: &mut Session, words: &[&str]) -> (String, String) {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    let mut reader = Reader::requests(Limits {
        frame: 4096,
        args: 16,
    });
    reader.space()[..text.len()].copy_from_slice(text.as_bytes());
    reader.filled(text.len());
    let Ok(Some(Frame::Array(args))) = reader.next() else {
        panic!("{text}")
    };
    let mut replies = Replies::new(65536);
    let effect = format!("{:?}", session.handle(&args, &mut replies));
    (String::from_utf8(replies.pending().to_vec()).unwrap(), effect)
}

fn answer(session: &mut Session, words: &[&str]) -> String {
    say(session, words).0
}

#[test]
fn as_coturn_speaks() {
    let mut s = session(None, None);
    assert_eq!(answer(&mut s, &["AUTH", ""]), "+OK\r\n");
    assert_eq!(
        say(&mut s, &["select", "3"]),
        ("+OK\r\n".into(), "Identified".into())
    );
    assert_eq!(say(&mut s, &["keys", "turn/*"]), ("*0\r\n".into(), "Keys".into()));
    assert_eq!(say(&mut s, &["set", "k", "v"]), ("+OK\r\n".into(), "None".into()));
    assert_eq!(say(&mut s, &["del", "k"]), (":1\r\n".into(), "None".into()));
    let (reply, effect) = say(&mut s, &["publish", "c", "p"]);
    assert_eq!((reply.as_str(), effect.starts_with("Message")), (":1\r\n", true));
    assert_eq!(&s.server()[..], b"127.0.0.1/-/3");
    // Once it has published it is who it was.
    assert_eq!(answer(&mut s, &["SELECT", "4"]), "+OK\r\n");
    assert_eq!(&s.server()[..], b"127.0.0.1/-/3");
}

#[test]
fn a_password_is_asked_for() {
    let mut s = session(None, Some("geheim"));
    for (words, effect) in [
        // What a coturn without a password goes on with; said once.
        (&["PUBLISH", "c", "p"][..], "Refused(NoPassword)"),
        (&["SELECT", "1"], "None"),
        (&["PING"], "None"),
        (&["NONSENSE"], "None"),
        (&["INFO"], "None"),
    ] {
        assert_eq!(
            say(&mut s, words),
            ("-NOAUTH Authentication required.\r\n".into(), effect.into())
        );
    }
    assert!(answer(&mut s, &["HELLO", "3", "AUTH", "default", "geheim"]).starts_with("-NOAUTH"));
    assert!(answer(&mut s, &["AUTH", "geheiM"]).starts_with("-WRONGPASS"));
    assert!(answer(&mut s, &["AUTH", "anybody", "geheim2"]).starts_with("-WRONGPASS"));
    assert!(!s.authenticated());
    assert_eq!(answer(&mut s, &["AUTH", "geheim"]), "+OK\r\n");
    assert!(s.authenticated());
    assert_eq!(answer(&mut s, &["PING"]), "+PONG\r\n");

    let mut s = session(Some("turn"), Some("geheim"));
    assert!(answer(&mut s, &["AUTH", "geheim"]).starts_with("-WRONGPASS"));
    assert!(answer(&mut s, &["AUTH", "other", "geheim"]).starts_with("-WRONGPASS"));
    assert_eq!(answer(&mut s, &["AUTH", "turn", "geheim"]), "+OK\r\n");
    assert_eq!(&s.server()[..], b"127.0.0.1/turn/0");
    let mut s = session(Some("default"), Some("geheim"));
    assert_eq!(answer(&mut s, &["AUTH", "geheim"]), "+OK\r\n");
}

#[test]
fn guessing_ends_the_connection_and_so_does_chatter() {
    let mut s = session(None, Some("geheim"));
    for (password, reason) in [("a", "WrongPassword"), ("", "NoPassword"), ("c", "WrongPassword")] {
        assert!(!s.is_hopeless());
        assert_eq!(say(&mut s, &["AUTH", password]).1, format!("Refused({reason})"));
    }
    assert!(s.is_hopeless());
    let mut s = session(None, Some("geheim"));
    for _ in 0..EARLY {
        assert!(!s.is_hopeless());
        answer(&mut s, &["PING"]);
    }
    assert!(s.is_hopeless());
    // Who is let in says what he likes.
    let mut s = session(None, Some("geheim"));
    assert!(answer(&mut s, &["AUTH", "a"]).starts_with("-WRONGPASS"));
    assert_eq!(answer(&mut s, &["AUTH", "geheim"]), "+OK\r\n");
    for _ in 0..100 {
        assert_eq!(answer(&mut s, &["PING"]), "+PONG\r\n");
    }
    assert!(!s.is_hopeless());
}

#[test]
fn what_is_kept_of_a_client_is_short() {
    let mut s = session(None, Some("geheim"));
    let user = "u".repeat(LONGEST_USER + 1);
    assert!(answer(&mut s, &["AUTH", &user, "geheim"]).starts_with("-WRONGPASS"));
    assert_eq!(answer(&mut s, &["AUTH", &user[1..], "geheim"]), "+OK\r\n");
    assert!(s.server().len() < 192);
}

#[test]
fn tools_may_ping_and_quit_and_are_known_by_the_rest() {
    let mut s = session(None, None);
    assert_eq!(say(&mut s, &["ping"]), ("+PONG\r\n".into(), "None".into()));
    assert_eq!(answer(&mut s, &["ping", "hi"]), "$2\r\nhi\r\n");
    for words in [
        &["COMMAND", "DOCS"][..],
        &["INFO"],
        &["CLIENT", "ID"],
        &["HELLO", "3"],
        &["ECHO", "hi"],
    ] {
        let (reply, effect) = say(&mut s, words);
        assert!(
            reply.starts_with("-ERR unknown command") && effect == "Tool",
            "{words:?}: {reply}"
        );
    }
    assert_eq!(say(&mut s, &["QUIT"]), ("+OK\r\n".into(), "Close".into()));
}

#[test]
fn the_rest_is_refused_as_redis_does() {
    let mut s = session(None, None);
    assert_eq!(
        answer(&mut s, &["FLUSHALL", "a\r\n+OK", "b"]),
        "-ERR unknown command 'FLUSHALL', with args beginning with: 'a\\r\\n+OK' 'b' \r\n"
    );
    assert!(answer(&mut s, &[&"X".repeat(1000)]).len() < 200);
    assert_eq!(
        answer(&mut s, &["GET"]),
        "-ERR unknown command 'GET', with args beginning with: \r\n"
    );
    assert_eq!(
        answer(&mut s, &["PUBLISH", "c"]),
        "-ERR wrong number of arguments for 'publish' command\r\n"
    );
    for number in ["x", "-1", "4294967296", "", "1 "] {
        assert_eq!(answer(&mut s, &["SELECT", number]), "-ERR invalid DB index\r\n");
    }
}

#[test]
fn replies_past_the_bound_are_dropped_whole() {
    let mut replies = Replies::new(10);
    for _ in 0..100 {
        replies.push(b":1\r\n");
    }
    assert_eq!(replies.pending(), b":1\r\n:1\r\n");
    replies.written(5);
    replies.push(b"+OK\r\n");
    assert_eq!(replies.pending(), b"1\r\n+OK\r\n");
    replies.written(8);
    assert!(replies.pending().is_empty());
    replies.push(b"+more than ten\r\n");
    assert!(replies.pending().is_empty());
}
