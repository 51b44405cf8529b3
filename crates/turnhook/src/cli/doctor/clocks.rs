//! The clocks of others, against this machine's.

use turnhook_dispatcher::clock::wall_clock;
use turnhook_reducer::time::Timestamp;

use super::{super::error::CliError, report::Report};
use crate::cli::units::duration;

/// Receivers refuse signatures that are five minutes off, and times in bills are this machine's.
const FAR: u64 = 60_000;
/// What no network explains.
const OFF: u64 = 3_000;

/// How far each clock is from ours.
#[derive(Debug, Default)]
pub(super) struct Clocks(Vec<(String, i128)>);

impl Clocks {
    /// A clock that was read just now; `coarse` if it has whole seconds only.
    pub(super) fn add(&mut self, whose: String, theirs: Timestamp, coarse: bool) {
        let ours = i128::from(wall_clock().0);
        let theirs = i128::from(theirs.0) + if coarse { 500 } else { 0 };
        self.0.push((whose, theirs - ours));
    }

    pub(super) fn report(&self, report: &mut Report) -> Result<(), CliError> {
        for (whose, ahead) in &self.0 {
            let off = u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX);
            let way = if *ahead > 0 { "behind" } else { "ahead of" };
            let text = format!("this machine's is {} {way} that of {whose}", duration(off));
            let cure = "let both follow a time server (`timedatectl`): signatures and bills bear this machine's time";
            if off <= OFF {
                report.ok("clock", format!("agrees with that of {whose}"))?;
            } else if off <= FAR {
                report.warn("clock", text, cure)?;
            } else {
                report.fail("clock", text, cure)?;
            }
        }
        Ok(())
    }
}
