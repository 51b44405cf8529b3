//! Ending what blocked users have open. Who is blocked stands in the store; the block keeper (`blocks.rs`) informs
//! every source, its reducer names the allocations, and a task for each control (`control.rs`) ends them.
//!
//! ```text
//! store ── block keeper ──▶ source task: reducer ── to end ──▶ control ── may I? ──▶ source task: leads, open, marked
//!                                                               control ── ps, cs ──▶ coturn ── deleted ──▶ the stream
//! ```
//!
//! Before a control says its word, that it will is on record (`intent.rs`): coturn does not say who ended an
//! allocation, and this process may not live to hear of it.
//!
//! Metering waits for none of it: a source only answers questions, and what it hands over goes into queues with bounds.

mod api;
mod blocks;
mod control;
mod gate;
mod intent;
mod notifying;
mod obey;
mod orders;
mod quota;
mod source;

pub(crate) use api::routes;
pub(crate) use blocks::{Active, BlockKeeper, Blocker};
pub(crate) use control::ControlTask;
pub(crate) use gate::{GatePart, Known};
pub(crate) use intent::Recorded;
pub(crate) use notifying::Notifier;
pub(crate) use obey::Obey;
pub(crate) use orders::Ask;
pub(crate) use quota::{QuotaKeeper, QuotaTap, counting};
pub(crate) use source::{Enforcing, Heard};
use tokio::sync::{mpsc, watch};

/// Allocations that wait for a control. What finds no place is named again with its next refresh.
const JOBS: usize = 10_000;

/// Both ends of what lies between the sources and their controls.
pub(crate) struct Wires {
    pub(crate) enforcing: Enforcing,
    pub(crate) controls: Vec<ControlTask>,
}

/// For one source.
pub(crate) fn wire(
    source: &str,
    config: &crate::config::Config,
    active: watch::Receiver<Active>,
    metrics: &std::sync::Arc<crate::metrics::Metrics>,
    health: &std::sync::Arc<crate::health::Health>,
) -> Wires {
    let (asks, asked) = mpsc::channel(64);
    let (mut ways, mut controls) = (Vec::new(), Vec::new());
    for control in config.controls.iter().filter(|control| control.source == source) {
        let (sender, orders) = mpsc::channel(JOBS);
        let task = ControlTask::new(control, &config.enforce, orders, asks.clone(), metrics, health);
        ways.push(source::Way::new(control.server.clone(), task.known(), sender));
        controls.push(task);
    }
    let blocked_new = metrics.enforce.blocked_new(source);
    let enforcing = Enforcing::new(active, asked, asks, ways, config.enforce.confirm, blocked_new);
    Wires { enforcing, controls }
}
