//! Days on the command line.

use jiff::civil::Date;
use turnhook_dispatcher::body::rfc3339;
use turnhook_reducer::time::Timestamp;

use super::error::CliError;

const EPOCH: Date = Date::constant(1970, 1, 1);
pub(super) const DAY_MS: u64 = 86_400_000;
/// 9999-12-30: what begins after it begins at no time.
const LAST: i64 = 2_932_895;

/// Days since 1970-01-01.
pub(super) fn parse_day(text: &str) -> Result<u32, String> {
    let date: Date = text
        .parse()
        .map_err(|_| "write a day like 2026-11-22".to_owned())?;
    let days = date.since(EPOCH).map_err(|error| error.to_string())?.get_days();
    u32::try_from(days).map_err(|_| "before 1970".to_owned())
}

/// The day with that number; the last that there is, for those after it.
pub(super) fn date(day: u32) -> Date {
    EPOCH
        .checked_add(jiff::Span::new().days(i64::from(day).min(LAST)))
        .unwrap_or(EPOCH)
}

/// Its number; 0 before 1970.
pub(super) fn number(date: Date) -> u32 {
    let days = date.since(EPOCH).map_or(0, |span| span.get_days());
    u32::try_from(days).unwrap_or(0)
}

pub(super) fn day_text(day: u32) -> String {
    rfc3339(Timestamp(u64::from(day) * DAY_MS))
        .chars()
        .take(10)
        .collect()
}

/// From the first day to the last, both included.
pub(super) fn check_order(from: u32, to: u32) -> Result<(), CliError> {
    if from <= to {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "--from {} is after --to {}: there is nothing in between",
        day_text(from),
        day_text(to)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(parse_day("1970-01-01"), Ok(0));
        assert_eq!(parse_day("2026-11-22").map(day_text), Ok("2026-11-22".to_owned()));
        assert!(parse_day("today").is_err() && parse_day("1969-12-31").is_err());
        assert_eq!(number(date(20_779)), 20_779);
        assert_eq!(date(u32::MAX).to_string(), "9999-12-30");
        assert!(check_order(3, 3).is_ok() && check_order(3, 2).is_err());
    }
}
