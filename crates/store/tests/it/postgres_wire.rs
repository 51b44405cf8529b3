//! A connection to the server that can be stopped on its way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Hands on what it gets in both directions, until it is stopped: then the sockets stay open, and nothing comes through.
pub(crate) struct Wire {
    pub(crate) port: u16,
    stopped: Arc<AtomicBool>,
}

impl Wire {
    pub(crate) async fn to(port: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Wire {
            port: listener.local_addr().unwrap().port(),
            stopped: Arc::default(),
        };
        let stopped = Arc::clone(&wire.stopped);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(hand_on(near_in, far_out, Arc::clone(&stopped)));
                tokio::spawn(hand_on(far_in, near_out, Arc::clone(&stopped)));
            }
        });
        wire
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

async fn hand_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, stopped: Arc<AtomicBool>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let n = from.read(&mut buffer).await.unwrap_or(0);
        // Neither bytes nor an end come through.
        while stopped.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if n == 0 || to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
}
