//! A real coturn: Debian's, and the one that `TURNBIN` names.

use std::time::Instant;

use secrecy::SecretString;
use turnhook_control::{Config, Connection, Error, Search, Target};
use turnhook_reducer::message::AllocationId;

use crate::support::{Coturn, PATIENCE, config, turnservers};

#[tokio::test]
async fn an_allocation_is_found_and_ended_and_nobody_else() {
    for program in turnservers() {
        let coturn = Coturn::start(&program, &[]).await;
        let (_ann, _bob) = (coturn.client("ann", &[]), coturn.client("bob", &["-t"]));
        let bobs = coturn.sessions_of("bob", 2).await;
        let target = coturn.sessions_of("ann", 2).await.remove(0);

        let mut connection = Connection::open(&config(coturn.cli)).await.unwrap();
        let version = connection.coturn().version.unwrap();
        assert_eq!(version.major, 4, "{version}");
        assert!(
            connection
                .coturn()
                .answers_for(format!("127.0.0.1:{}", coturn.port).as_bytes())
        );

        // Whoever has the number after a restart is another one.
        let other = Target {
            client: Some((*b"127.0.0.1:9").into()),
            ..target.clone()
        };
        assert!(matches!(connection.find(&other).await.unwrap(), Search::Gone));
        let other = Target {
            realm: (*b"example.com").into(),
            ..target.clone()
        };
        assert!(matches!(connection.find(&other).await.unwrap(), Search::Gone));
        let elsewhere = Target {
            server: Some((*b"127.0.0.1:9").into()),
            ..target.clone()
        };
        assert!(matches!(
            connection.find(&elsewhere).await.unwrap(),
            Search::WrongServer
        ));

        let Search::Found(found) = connection.find(&target).await.unwrap() else {
            panic!("{target:?} is not found");
        };
        connection.end(found).await.unwrap();
        // Another thread of coturn's does it.
        let deadline = Instant::now() + PATIENCE;
        while !matches!(connection.find(&target).await.unwrap(), Search::Gone) {
            assert!(Instant::now() < deadline, "{target:?} goes on");
        }
        let left = coturn.list().await;
        assert!(bobs.iter().all(|bob| left.contains(bob)), "{left:?}");
        assert!(!left.contains(&target));
    }
}

/// Its socket would be closed, and it would go on with its ticket, out of sight.
#[tokio::test]
async fn a_client_that_can_move_is_not_touched() {
    for program in turnservers() {
        let coturn = Coturn::start(&program, &["--mobility"]).await;
        let _client = coturn.client("mob", &["-M"]);
        let target = coturn.sessions_of("mob", 2).await.remove(1);
        let mut connection = Connection::open(&config(coturn.cli)).await.unwrap();
        let found = connection.find(&target).await.unwrap();
        assert!(matches!(found, Search::Mobile), "{found:?}");
        assert!(coturn.list().await.contains(&target));
    }
}

/// Both listen, and the kernel deals connections out: one that is dealt to the other server is of no use.
#[tokio::test]
async fn of_two_servers_on_one_port_only_the_right_one_is_told() {
    for program in turnservers() {
        let one = Coturn::start(&program, &[]).await;
        let two = Coturn::start_on(&program, Some(one.cli), &[]).await;
        let local = format!("127.0.0.1:{}", one.port);
        let target = Target {
            id: AllocationId(1),
            username: (*b"nobody").into(),
            realm: (*b"example.org").into(),
            client: Some((*b"127.0.0.1:9").into()),
            server: Some(local.as_bytes().into()),
            age: None,
        };
        let (mut right, mut wrong) = (0, 0);
        for _ in 0..200 {
            let mut connection = Connection::open(&config(one.cli)).await.unwrap();
            let of_two = connection.coturn().ports.contains(&two.port);
            match connection.find(&target).await.unwrap() {
                Search::WrongServer if of_two => wrong += 1,
                Search::Gone if !of_two => right += 1,
                other => panic!("{other:?}, {:?}", connection.coturn()),
            }
            if right > 0 && wrong > 0 {
                break;
            }
        }
        assert!(
            right > 0 && wrong > 0,
            "the kernel has dealt all to one: {right}, {wrong}"
        );
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_to_be_one() {
    for program in turnservers() {
        let coturn = Coturn::start(&program, &[]).await;
        let wrong = Config {
            password: SecretString::from("guess"),
            ..config(coturn.cli)
        };
        let error = Connection::open(&wrong).await.unwrap_err();
        assert!(matches!(error, Error::Password { .. }), "{error}");
        assert!(!error.to_string().contains("guess"), "{error}");
        // And it harms nobody else.
        Connection::open(&config(coturn.cli)).await.unwrap();
    }
}
