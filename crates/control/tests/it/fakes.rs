//! CLIs that misbehave.

use std::{future::Future, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};
use turnhook_control::{Config, Connection, Error, Search, Target};
use turnhook_reducer::message::AllocationId;

use crate::support::{PASSWORD, config, local};

const BANNER: &str = "TURN Server\r\nCoturn-4.6.1 'Gorst'\r\n\r\nType '?' for help\r\nEnter password: \r\n";
const PC: &str = "\r\n  Listener addr: 127.0.0.1\r\n  listener-port: 3478\r\n\r\n> ";

/// One connection of a CLI that does as it is told here.
async fn fake<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (Config, JoinHandle<()>) {
    let listener = TcpListener::bind(local(0)).await.unwrap();
    let config = config(listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        serve(stream).await;
    });
    (config, serving)
}

/// The next segment, which has to be one whole line: coturn takes it for one command.
async fn line(stream: &mut TcpStream) -> String {
    let mut read = [0; 2048];
    let n = stream.read(&mut read).await.unwrap();
    let text = String::from_utf8(read[..n].to_vec()).unwrap();
    let line = text.strip_suffix("\r\n").unwrap();
    assert!(!line.contains('\n'), "{text:?}");
    line.to_owned()
}

async fn expect(stream: &mut TcpStream, wanted: &str, answer: &str) {
    assert_eq!(line(stream).await, wanted);
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn up_to_parameters(stream: &mut TcpStream) {
    stream.write_all(BANNER.as_bytes()).await.unwrap();
    expect(stream, PASSWORD, "> ").await;
    expect(stream, "pc", PC).await;
}

fn target(id: u64) -> Target {
    Target {
        id: AllocationId(id),
        username: (*b"ann").into(),
        realm: (*b"example.org").into(),
        client: Some(format!("127.0.0.1:{}", 10_000 + id).into_bytes().into()),
        server: Some((*b"127.0.0.1:3478").into()),
        age: None,
    }
}

fn entry(id: u64) -> String {
    format!(
        "\r\n    {id}) id={id:018}, user <ann>:\r\n      realm: example.org\r\n      started 1 secs ago\r\n      \
         client addr 127.0.0.1:{}, server addr 127.0.0.1:3478\r\n      mobile: OFF\r\n",
        10_000 + id
    )
}

fn short(config: Config) -> Config {
    Config {
        timeout: Duration::from_millis(300),
        ..config
    }
}

#[tokio::test]
async fn bytes_that_trickle_are_put_together() {
    let (config, serving) = fake(|mut stream| async move {
        let answers = [(None, BANNER), (Some(PASSWORD), "> "), (Some("pc"), PC)];
        let ps = format!("{}\r\n  Total sessions: 1\r\n\r\n> ", entry(7));
        let said = answers.into_iter().chain([
            (Some("ps ann"), ps.as_str()),
            (Some("cs 000000000000000007"), "> "),
        ]);
        for (wanted, answer) in said {
            if let Some(wanted) = wanted {
                assert_eq!(line(&mut stream).await, wanted);
            }
            for byte in answer.as_bytes() {
                stream.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let mut connection = Connection::open(&config).await.unwrap();
    let Search::Found(found) = connection.find(&target(7)).await.unwrap() else {
        panic!("not found");
    };
    connection.end(found).await.unwrap();
    serving.await.unwrap();
}

/// Each answer has one deadline, however many bytes of it come.
#[tokio::test]
async fn bytes_that_trickle_for_ever_are_not_waited_for() {
    let (config, serving) = fake(|mut stream| async move {
        while stream.write_all(b"T").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let error = Connection::open(&short(config)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    serving.abort();
}

#[tokio::test]
async fn a_prompt_that_never_comes_is_not_waited_for() {
    let (config, serving) = fake(|mut stream| async move {
        up_to_parameters(&mut stream).await;
        expect(&mut stream, "ps ann", "\r\n  Total sessions: 0\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut connection = Connection::open(&short(config)).await.unwrap();
    let error = connection.find(&target(1)).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                waiting_for: "ps",
                ..
            }
        ),
        "{error}"
    );
    serving.abort();
}

#[tokio::test]
async fn a_connection_that_is_closed_in_the_middle_of_an_answer_is_said_to_be() {
    let (config, serving) = fake(|mut stream| async move {
        up_to_parameters(&mut stream).await;
        expect(&mut stream, "ps ann", "\r\n    1) id=0000").await;
    })
    .await;
    let mut connection = Connection::open(&config).await.unwrap();
    let error = connection.find(&target(1)).await.unwrap_err();
    assert!(error.is_stale(), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let (config, serving) = fake(|mut stream| async move {
        up_to_parameters(&mut stream).await;
        assert_eq!(line(&mut stream).await, "ps ann");
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    let mut connection = Connection::open(&config).await.unwrap();
    let error = connection.find(&target(1)).await.unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    drop(connection);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_given_once() {
    let (config, serving) = fake(|mut stream| async move {
        stream.write_all(BANNER.as_bytes()).await.unwrap();
        expect(&mut stream, PASSWORD, "Enter password: \r\n").await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    })
    .await;
    let error = Connection::open(&config).await.unwrap_err();
    assert!(matches!(error, Error::Password { .. }), "{error}");
    serving.await.unwrap();
}

/// Who is not coturn is not told the password.
#[tokio::test]
async fn a_stranger_is_not_given_the_password() {
    let (config, serving) = fake(|mut stream| async move {
        stream.write_all(b"Welcome!\r\nEnter password: ").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    })
    .await;
    let error = Connection::open(&config).await.unwrap_err();
    assert!(matches!(error, Error::NoCoturn { .. }), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn of_three_hundred_sessions_the_one_is_found() {
    let (config, serving) = fake(|mut stream| async move {
        up_to_parameters(&mut stream).await;
        let all: String = (1..=300).map(entry).collect();
        expect(
            &mut stream,
            "ps ann",
            &format!("{all}\r\n  Total sessions: 300\r\n\r\n> "),
        )
        .await;
        // coturn lists 256 by default.
        let some: String = (1..=256).map(entry).collect();
        let cut = format!("{some}...\r\n\r\n  Total sessions: 300\r\n\r\n> ");
        expect(&mut stream, "ps ann", &cut).await;
        expect(&mut stream, "ps ann", &cut).await;
        expect(&mut stream, "ps ann", "Unknown command\r\n\r\n> ").await;
    })
    .await;
    let mut connection = Connection::open(&config).await.unwrap();
    assert!(matches!(
        connection.find(&target(299)).await,
        Ok(Search::Found(_))
    ));
    assert!(matches!(
        connection.find(&target(299)).await,
        Ok(Search::Unlisted)
    ));
    assert!(matches!(
        connection.find(&target(256)).await,
        Ok(Search::Found(_))
    ));
    let error = connection.find(&target(1)).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn a_name_that_the_cli_would_misread_is_not_said() {
    let (config, serving) = fake(|mut stream| async move {
        up_to_parameters(&mut stream).await;
        expect(&mut stream, "ps %s<x>:/ä", "\r\n  Total sessions: 0\r\n\r\n> ").await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    })
    .await;
    let mut connection = Connection::open(&config).await.unwrap();
    let named = |name: &[u8]| Target {
        username: name.into(),
        ..target(1)
    };
    for name in [b"".as_slice(), b"a\r\nstop", b"a b", b"a\xff\xf4"] {
        let error = connection.find(&named(name)).await.unwrap_err();
        assert!(matches!(error, Error::Name), "{error}");
    }
    let found = connection.find(&named("%s<x>:/ä".as_bytes())).await.unwrap();
    assert!(matches!(found, Search::Gone));
    drop(connection);
    serving.await.unwrap();
}
