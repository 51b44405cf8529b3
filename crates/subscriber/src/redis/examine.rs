//! Looks at a Redis as a source would use it, and says what is missing: for `turnhook doctor`.

use std::{sync::Arc, time::Duration};

use fred::types::Value;
use tokio::time::timeout;
use turnhook_reducer::time::Timestamp;

use super::{
    RedisConfig,
    config::{Node, Target},
    heal,
    snapshot::Commands,
    subscription::{PATTERNS, Subscription},
    topology,
};
use crate::{error::SubscriberError, queue};

/// A key that no coturn makes, below what a user must be allowed to read.
const KEY: &str = "turn/turnhook/doctor/status";

/// What was looked at, and what was found: what is there, or what is missing and the cure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// In the order in which it was looked at.
    pub looks: Vec<(&'static str, Result<String, String>)>,
    /// What works, and will be missed one day.
    pub warnings: Vec<(&'static str, String)>,
    /// Redis's clock, in milliseconds since the epoch.
    pub clock: Option<u64>,
}

impl RedisConfig {
    /// Connects, subscribes, and tries each command that a source needs (with `heal`, those of healing too). Changes
    /// nothing.
    ///
    /// # Errors
    /// A configuration that cannot be used.
    pub async fn examine(&self, heal: bool) -> Result<Examined, SubscriberError> {
        let target = self.target()?;
        let mut examined = Examined::default();
        let patience = self.patience.answer;
        let subscribed = within(patience, self.subscribe(&target)).await;
        let node = subscribed.as_ref().ok().cloned();
        let [one, other] = PATTERNS;
        examined.looks.push((
            "subscription",
            subscribed.map(|node| format!("{node}: {one} and {other}")),
        ));
        let node = match node {
            Some(node) => Some(node),
            // It may be for the channels alone.
            None => within(patience, topology::find(&target, &[], patience))
                .await
                .ok(),
        };
        let Some(node) = node else { return Ok(examined) };
        match within(patience, topology::connect(target.config_of(&node), patience)).await {
            Ok(connected) => examined.commands(&Commands::new(connected), heal).await,
            Err(error) => examined.looks.push(("commands", Err(error))),
        }
        Ok(examined)
    }

    async fn subscribe(&self, target: &Target) -> Result<Node, String> {
        let node = topology::find(target, &[], self.patience.answer).await?;
        // What comes meanwhile is heard by nobody.
        let (signals, _unheard) = queue::channel(1 << 20);
        let clock = Arc::new(|| Timestamp(0));
        Subscription::open(target, &node, clock, signals, self.patience).await?;
        Ok(node)
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())))
}

impl Examined {
    async fn commands(&mut self, commands: &Commands, heal: bool) {
        let info = commands.call("INFO", vec!["server".into()]).await;
        if let Some(version) = info.as_ref().ok().and_then(|info| field(info, "redis_version:")) {
            self.looks.push(("version", Ok(format!("Redis {version}"))));
        }
        for (what, command, arguments) in [
            ("scan", "SCAN", vec!["0", "MATCH", "turn/*/status", "COUNT", "1"]),
            ("object|idletime", "OBJECT", vec!["IDLETIME", KEY]),
            ("get", "GET", vec![KEY]),
        ] {
            let answer = commands.call(command, values(&arguments)).await;
            self.looks.push((what, answer.map(|_| "allowed".to_owned())));
        }
        if heal {
            for (what, answer) in heal::rights(commands).await {
                self.looks.push((what, answer.map(|_| "allowed".to_owned())));
            }
        }
        if let Ok(memory) = commands.call("INFO", vec!["memory".into()]).await
            && let Some(policy) = field(&memory, "maxmemory_policy:").filter(|policy| policy.contains("lfu"))
        {
            self.warnings.push((
                "maxmemory-policy",
                format!("{policy} keeps no idle times, so that no snapshot opens anything after a gap: take noeviction"),
            ));
        }
        self.clock = match commands.call("TIME", Vec::new()).await {
            Ok(Value::Array(parts)) => {
                let part = |at: usize| parts.get(at).and_then(Value::as_u64);
                part(0)
                    .zip(part(1))
                    .map(|(seconds, micros)| seconds * 1000 + micros / 1000)
            }
            _ => None,
        };
    }
}

fn values(words: &[&str]) -> Vec<Value> {
    words.iter().map(|word| Value::from(*word)).collect()
}

fn field(info: &Value, name: &str) -> Option<String> {
    let text = info.as_str()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
