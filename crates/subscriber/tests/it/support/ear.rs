//! The engine's end of a running source.

use super::*;

/// One message, as heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub server: Option<String>,
    pub channel: Vec<u8>,
    pub payload: Vec<u8>,
}

/// The engine's end of a running source: keeps all that it is told.
pub struct Ear {
    pub source: SourceHandle,
    receiver: SignalReceiver,
    pub messages: Vec<Heard>,
    /// As of when each of them was heard.
    pub times: Vec<Timestamp>,
    pub gaps: Vec<Gap>,
    /// Everything but messages and gaps, in words, in order.
    pub told: Vec<String>,
    pub entries: Vec<turnhook_subscriber::signal::SnapshotEntry>,
    pub refused: u64,
    /// Who was turned away, as it was told, and how many there were for each reason.
    pub refusals: Vec<TurnedAway>,
    pub turned_away: BTreeMap<&'static str, u64>,
    /// Times in which somebody unknown was turned away.
    pub unheard: Vec<Gap>,
    /// Which of the keys of a snapshot are wanted.
    pub wants: fn(&[u8]) -> bool,
}

pub async fn start(config: SourceConfig) -> Ear {
    start_with(config, clock(), queue::DEFAULT_BOUND).await
}

pub async fn start_with(config: SourceConfig, clock: Clock, bound: usize) -> Ear {
    let (sender, receiver) = queue::channel(bound);
    start_on(config, clock, sender, receiver).await
}

pub async fn start_on(
    config: SourceConfig,
    clock: Clock,
    sender: SignalSender,
    receiver: SignalReceiver,
) -> Ear {
    let source = config.start(clock, sender).await.unwrap();
    Ear::of(source, receiver)
}

impl Ear {
    fn of(source: SourceHandle, receiver: SignalReceiver) -> Ear {
        Ear {
            source,
            receiver,
            messages: Vec::new(),
            times: Vec::new(),
            gaps: Vec::new(),
            told: Vec::new(),
            entries: Vec::new(),
            refused: 0,
            refusals: Vec::new(),
            turned_away: BTreeMap::new(),
            unheard: Vec::new(),
            wants: |_| true,
        }
    }

    /// Stops reading. What it has read by then is heard.
    pub async fn suspend(mut self) -> (Suspended, Vec<Heard>) {
        let mut heard = std::mem::take(&mut self.messages);
        let suspended = self.source.suspend().await.unwrap();
        while let Some(signal) = self.receiver.try_recv() {
            if let Signal::Messages(batch) = signal {
                heard.extend(batch.iter().map(|(channel, payload)| Heard {
                    server: None,
                    channel: channel.to_vec(),
                    payload: payload.to_vec(),
                }));
            }
        }
        (suspended, heard)
    }

    /// Another program goes on, with what has come through its hands as far as `keeps` lets it.
    pub async fn resume(suspended: Suspended, clock: Clock, keeps: impl Fn(usize) -> bool) -> Ear {
        Ear::resume_with(suspended, DirectConfig::new(local(0)), clock, keeps).await
    }

    /// The same, with a password, or whatever else is configured.
    pub async fn resume_with(
        suspended: Suspended,
        config: DirectConfig,
        clock: Clock,
        keeps: impl Fn(usize) -> bool,
    ) -> Ear {
        let state = suspended.state.unwrap();
        let state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
        let sockets = suspended.streams.into_iter().enumerate();
        let sockets = sockets
            .filter(|(place, _)| keeps(*place))
            .map(|(_, stream)| (handover::identity(&stream).unwrap(), stream.into()));
        let left = Left {
            connections: Some((state, sockets.collect())),
            listener: Some(suspended.listener),
        };
        let (sender, receiver) = queue::channel(queue::DEFAULT_BOUND);
        let config = SourceConfig::Direct(config);
        Ear::of(config.resume(left, clock, sender).await.unwrap(), receiver)
    }

    pub fn port(&self) -> u16 {
        self.source.local_addr().unwrap().port()
    }

    /// Listens until the condition holds.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&Ear) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.receiver.recv()).await {
                Ok(Some(signal)) => self.take(signal),
                Ok(None) => panic!("the source is gone before: {what}"),
                Err(_) => panic!("never heard: {what}\n{:#?}\n{:?}", self.told, self.gaps),
            }
        }
    }

    /// Listens for a while.
    pub async fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(Some(signal)) = timeout(
            deadline.saturating_duration_since(Instant::now()),
            self.receiver.recv(),
        )
        .await
        {
            self.take(signal);
        }
    }

    pub async fn hearing(&mut self) {
        let before = self.count("hearing");
        self.until("hearing", |e| e.count("hearing") > before).await;
    }

    pub fn count(&self, word: &str) -> usize {
        self.told.iter().filter(|t| t.starts_with(word)).count()
    }

    pub fn heard(&self, payload: &str) -> bool {
        self.messages.iter().any(|m| m.payload == payload.as_bytes())
    }

    fn take(&mut self, signal: Signal) {
        let text = |s: &[u8]| String::from_utf8_lossy(s).into_owned();
        match signal {
            Signal::Messages(batch) => {
                let server = batch.server.as_deref().map(text);
                self.times.extend(batch.iter().map(|_| batch.at));
                self.messages.extend(batch.iter().map(|(channel, payload)| Heard {
                    server: server.clone(),
                    channel: channel.into_owned(),
                    payload: payload.into_owned(),
                }));
            }
            Signal::Gap(gap) => {
                assert!(gap.from <= gap.to, "{gap:?}");
                self.told.push(format!("gap {}", gap.reason.as_str()));
                self.gaps.push(gap);
            }
            Signal::Refused { reason, count } => {
                self.refused += count;
                self.told.push(format!("refused {}", reason.as_str()));
            }
            Signal::Hearing { detail, .. } => self.told.push(format!("hearing {detail}")),
            Signal::Deaf { error, .. } => self.told.push(format!("deaf {error}")),
            Signal::ServerConnected { server, .. } => self.told.push(format!("connected {}", text(&server))),
            Signal::ServerGone { server, .. } => self.told.push(format!("gone {}", text(&server))),
            Signal::ServerReturned { server, .. } => self.told.push(format!("returned {}", text(&server))),
            Signal::ThreadConnected { server, thread, .. } => {
                self.told.push(format!("+{thread} {}", text(&server)));
            }
            Signal::ThreadDisconnected { server, thread, .. } => {
                self.told.push(format!("-{thread} {}", text(&server)));
            }
            Signal::TurnedAway(told) => {
                *self.turned_away.entry(told.reason.as_str()).or_default() += told.count;
                self.refusals.push(told);
            }
            Signal::Unheard(gap) => self.unheard.push(gap),
            Signal::ServerStopped { server, .. } => self.told.push(format!("stopped {}", text(&server))),
            Signal::ServerRestarted { server, .. } => self.told.push(format!("restarted {}", text(&server))),
            // Every second: no news.
            Signal::Answered { .. } | Signal::CaughtUp => {}
            Signal::Resumed { detail, .. } => self.told.push(format!("resumed {detail}")),
            Signal::SnapshotBegan { .. } => self.told.push("snapshot began".into()),
            Signal::SnapshotScanned { keys, wanted } => {
                let indexes = keys
                    .iter()
                    .enumerate()
                    .filter(|(_, k)| (self.wants)(k))
                    .map(|(i, _)| i)
                    .collect();
                let _ = wanted.send(indexes);
                self.told.push(format!("snapshot scanned {}", keys.len()));
            }
            Signal::SnapshotRead { entries, .. } => {
                self.told.push(format!("snapshot read {}", entries.len()));
                self.entries.extend(entries);
            }
            Signal::SnapshotEnded { complete, .. } => self.told.push(format!("snapshot ended {complete}")),
        }
    }

    /// What was heard, decoded: kinds of one username's messages, in order.
    pub fn kinds(&self, username: &str) -> Vec<Kind<'_>> {
        self.messages
            .iter()
            .filter_map(|m| decode::decode(&m.channel, &m.payload).ok())
            .filter(|m| m.username.ends_with(username.as_bytes()))
            .map(|m| m.kind)
            .collect()
    }
}
