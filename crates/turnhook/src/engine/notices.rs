//! What the reducer has noticed that is the operator's business: what happened, to what, and what to do.

use tracing::{info, warn};
use turnhook_reducer::Notice;

use crate::text::Untrusted;

fn text(bytes: &[u8]) -> String {
    Untrusted::from(bytes).to_string()
}

/// Of one source, in its log.
pub(super) fn log(source: &str, notice: &Notice) {
    match notice {
        Notice::SharedKey {
            allocation,
            addresses: [one, other],
        } => warn!(source, %allocation, one = %text(one), other = %text(other),
            "two servers share an allocation's key: give each coturn a source or a realm of its own"),
        Notice::Overcounted { allocation } => warn!(source, %allocation,
            "more was counted than coturn's total says: two allocations share a key"),
        Notice::TombstonesEvicted => warn!(source, "tombstones evicted early: raise [limits] tombstones"),
        Notice::LateReport { allocation } => warn!(source, %allocation,
            "coturn reported more than 4096 packets at once: a TCP relay (set no-tcp-relay in coturn), or a flood by \
             strangers; where its counters may have wrapped, the session is billed as a lower bound"),
        Notice::RealmSwitched {
            allocation,
            realm,
            claimed,
        } => warn!(source, %allocation, realm = %text(realm), claimed = %text(claimed),
            "a client has coturn name another realm than its own; it is billed under its own. Set no-tcp-relay in coturn"),
        Notice::TooManyAllocations { server } => {
            warn!(source, server = %server.as_deref().map(text).unwrap_or_default(),
            "this server has more open allocations than [limits] allocations allows: further ones are not counted")
        }
        Notice::PeerLeg { reported: true } => info!(
            source,
            "coturn reports the peer leg: what was relayed is billed by it"
        ),
        Notice::PeerLeg { reported: false } => warn!(
            source,
            "coturn reports no peer leg (it is older than 4.5.2): the client leg is billed in its place. Take coturn 4.13 \
             or newer"
        ),
        Notice::NoPeerLeg => warn!(
            source,
            "peer_leg = true, but coturn reports no peer leg: nothing is billed. Leave peer_leg away (\"auto\"), or take \
             coturn 4.13 or newer"
        ),
        Notice::HadNotStopped { server, from, to } => warn!(source,
            server = %server.as_deref().map(text).unwrap_or_default(), seconds = to.since(*from) / 1000,
            "a server that was taken to have stopped is heard again: its connections were broken meanwhile"),
        // `Notice` may grow; what it says is better logged as it stands than not.
        other => warn!(source, notice = ?other, "the reducer has noticed something"),
    }
}
