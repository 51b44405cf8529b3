//! From the configuration to what the parts take.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use turnhook_reducer::rules;
use turnhook_subscriber::{direct::DirectConfig, redis::RedisConfig, source::SourceConfig};

use crate::config::{AliveWhile, GroupBy, Limits, PeerLeg, Session, Source, SourceKind, Span, StartOn};

fn millis(span: Span) -> u64 {
    u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX)
}

/// The rules of a source's reducer. Fails with what is wrong about `user_pattern`.
pub(crate) fn rules(
    session: &Session,
    limits: &Limits,
    source: &Source,
) -> Result<rules::Rules, rules::PatternError> {
    let direct = matches!(source.kind, SourceKind::Direct(_));
    rules_of(session, limits, source.peer_leg, &source.realms, direct)
}

fn rules_of(
    session: &Session,
    limits: &Limits,
    peer_leg: rules::PeerLeg,
    realms: &[String],
    direct: bool,
) -> Result<rules::Rules, rules::PatternError> {
    Ok(rules::Rules {
        group_by: match session.group_by {
            GroupBy::User => rules::GroupBy::User,
            GroupBy::Username => rules::GroupBy::Username,
            GroupBy::Allocation => rules::GroupBy::Allocation,
        },
        user_pattern: rules::UserPattern::new(&session.user_pattern)?,
        start_on: match session.start_on {
            StartOn::Allocation => rules::StartOn::Allocation,
            StartOn::Relay => rules::StartOn::Relay,
        },
        alive_while: match session.alive_while {
            AliveWhile::Relaying => rules::AliveWhile::Relaying,
            AliveWhile::Allocated => rules::AliveWhile::Allocated,
        },
        linger: millis(session.linger),
        totals_grace: millis(session.totals_grace),
        report_grace: millis(session.report_grace),
        expiry_grace: millis(session.expiry_grace),
        usage_interval: millis(session.usage_interval),
        max_session: millis(session.max_session),
        residue: session.residue.0,
        billable: session.billable.into(),
        peer_leg,
        realms: rules::RealmPatterns::new(realms)?,
        direct,
        unconfirmed_limit: limits.unconfirmed as usize,
        tombstone_limit: limits.tombstones as usize,
        allocation_limit: limits.allocations as usize,
        ..rules::Rules::default()
    })
}

/// How to listen to a source.
pub(crate) fn source(source: &Source) -> SourceConfig {
    match &source.kind {
        SourceKind::Direct(direct) => SourceConfig::Direct(DirectConfig {
            user: direct.user.clone(),
            password: direct.password.clone(),
            tls: direct.tls.clone(),
            ..DirectConfig::new(direct.listen)
        }),
        SourceKind::Redis(redis) => SourceConfig::Redis(RedisConfig {
            user: redis.user.clone(),
            password: redis.password.clone(),
            ca_file: redis.ca_file.clone(),
            heal: redis.heal,
            ..RedisConfig::new(redis.url.expose())
        }),
    }
}

/// Recordings of before name none.
fn every() -> Vec<String> {
    vec!["*".to_owned()]
}

/// All that a recorded history needs to be run again (`turnhook record`, `turnhook simulate`).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct History {
    /// The format of the lines that follow.
    pub turnhook_history: u32,
    /// The source's name.
    pub source: String,
    /// Whether it is a `direct` one.
    pub direct: bool,
    /// `peer_leg` of the source.
    pub peer_leg: PeerLeg,
    /// `realms` of the source.
    #[serde(default = "every")]
    pub realms: Vec<String>,
    /// The store's id, in hexadecimal: part of every id.
    pub store_id: String,
    /// The time of the reducer when the recording began, in seconds.
    #[serde(default)]
    pub at: f64,
    /// Since when the source had heard all by then, in milliseconds; missing while it was deaf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hearing_since: Option<u64>,
    /// Servers, in base64, of which that is later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers_hearing_since: BTreeMap<String, u64>,
    /// `[session]`.
    pub session: Session,
    /// `[limits]`.
    pub limits: Limits,
}

impl History {
    /// The format that this version writes.
    pub const FORMAT: u32 = 1;

    pub(crate) fn new(session: &Session, limits: &Limits, source: &Source, store_id: [u8; 16]) -> History {
        History {
            turnhook_history: History::FORMAT,
            source: source.name.clone(),
            direct: matches!(source.kind, SourceKind::Direct(_)),
            peer_leg: PeerLeg(source.peer_leg),
            realms: source.realms.clone(),
            store_id: store_id.iter().map(|b| format!("{b:02x}")).collect(),
            at: 0.0,
            hearing_since: None,
            servers_hearing_since: BTreeMap::new(),
            session: session.clone(),
            limits: *limits,
        }
    }

    /// The rules that held. Fails with what is wrong about `user_pattern`.
    pub fn rules(&self) -> Result<rules::Rules, rules::PatternError> {
        rules_of(
            &self.session,
            &self.limits,
            self.peer_leg.0,
            &self.realms,
            self.direct,
        )
    }

    /// The store's id; `None` if it is not one.
    #[must_use]
    pub fn store_id(&self) -> Option<[u8; 16]> {
        let digits = self.store_id.as_bytes();
        let mut id = [0; 16];
        if digits.len() != 32 {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(id)
    }
}
