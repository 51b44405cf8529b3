//! What distinguishes series: names from the configuration, and words from fixed lists.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use turnhook_reducer::message::{Kind, Leg};

/// `{source}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabels {
    /// Its name in the configuration.
    pub source: String,
}

/// `{source,kind}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EventLabels {
    /// Its name in the configuration.
    pub source: String,
    /// Which of coturn's messages.
    pub kind: MessageKind,
}

/// `{source,reason}`; the reason is one of a fixed list.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Its name in the configuration.
    pub source: String,
    /// The reason.
    pub reason: &'static str,
}

/// `{source,direction}`: `to_peers` or `to_clients`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DirectionLabels {
    /// Its name in the configuration.
    pub source: String,
    /// Where the bytes went.
    pub direction: &'static str,
}

/// `{source,reason,accuracy}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EndLabels {
    /// Its name in the configuration.
    pub source: String,
    /// `end_reason`.
    pub reason: &'static str,
    /// `accuracy`.
    pub accuracy: &'static str,
}

/// `{endpoint}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EndpointLabels {
    /// Its name in the configuration.
    pub endpoint: String,
}

/// `{endpoint,outcome}`; the outcome is one of a fixed list.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// Its name in the configuration.
    pub endpoint: String,
    /// What became of an attempt.
    pub outcome: &'static str,
}

/// The kinds of coturn's messages, as `turnhook_events_total` counts them.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// `status`: `new …`.
    New,
    /// `status`: `refreshed …`.
    Refreshed,
    /// `status`: `deleted`.
    Deleted,
    /// `traffic`.
    Traffic,
    /// `traffic/peer`.
    TrafficPeer,
    /// `total_traffic`.
    TotalTraffic,
    /// `total_traffic/peer`.
    TotalTrafficPeer,
}

impl MessageKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [MessageKind; 7] = [
        MessageKind::New,
        MessageKind::Refreshed,
        MessageKind::Deleted,
        MessageKind::Traffic,
        MessageKind::TrafficPeer,
        MessageKind::TotalTraffic,
        MessageKind::TotalTrafficPeer,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MessageKind::New => "new",
            MessageKind::Refreshed => "refreshed",
            MessageKind::Deleted => "deleted",
            MessageKind::Traffic => "traffic",
            MessageKind::TrafficPeer => "traffic_peer",
            MessageKind::TotalTraffic => "total_traffic",
            MessageKind::TotalTrafficPeer => "total_traffic_peer",
        }
    }
}

impl From<&Kind<'_>> for MessageKind {
    fn from(kind: &Kind<'_>) -> MessageKind {
        match kind {
            Kind::New(_) => MessageKind::New,
            Kind::Refreshed(_) => MessageKind::Refreshed,
            Kind::Deleted => MessageKind::Deleted,
            Kind::Traffic(Leg::Client, _) => MessageKind::Traffic,
            Kind::Traffic(Leg::Peer, _) => MessageKind::TrafficPeer,
            Kind::TotalTraffic(Leg::Client, _) => MessageKind::TotalTraffic,
            Kind::TotalTraffic(Leg::Peer, _) => MessageKind::TotalTrafficPeer,
        }
    }
}

impl EncodeLabelValue for MessageKind {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}
