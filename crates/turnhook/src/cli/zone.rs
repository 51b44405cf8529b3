//! Whose midnight a day begins at, and in whose time tables are.

use clap::Args;
use jiff::civil::Date;
use serde_json::Value;
use turnhook_admin::Zone;
use turnhook_reducer::time::Timestamp;

use super::output::{self, parse_time};

#[derive(Clone, Debug, Default, Args)]
pub(super) struct ZoneArgs {
    /// Whose days and times: the system's rules of the zone, or those built in. JSON stays in UTC
    #[arg(long = "tz", value_name = "ZONE", default_value = "UTC", value_parser = parse_zone)]
    zone: Zone,
}

fn parse_zone(name: &str) -> Result<Zone, String> {
    Zone::named(Some(name)).map_err(|_| "write a zone's name like Europe/Berlin".to_owned())
}

impl std::ops::Deref for ZoneArgs {
    type Target = Zone;

    fn deref(&self) -> &Zone {
        &self.zone
    }
}

/// A time as JSON has it (`2026-11-22T06:00:57.624Z`), for people; `-` where there is none.
pub(super) fn shown(value: &Value, zone: &Zone) -> String {
    let Some(text) = value.as_str() else {
        return "-".to_owned();
    };
    let millis = text.parse().ok().map(|at: jiff::Timestamp| at.as_millisecond());
    match millis.and_then(|millis| u64::try_from(millis).ok()) {
        Some(millis) => zone.show(Timestamp(millis)),
        None => output::name(text.as_bytes()),
    }
}

/// A time on the command line: as [`parse_time`] has it, but that a day's midnight is the zone's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Day(Date),
}

impl When {
    pub(super) fn parse(text: &str) -> Result<When, String> {
        // What is no time at all is said there.
        let at = parse_time(text)?;
        // A time begins with a day, too, and would be taken for one.
        let is_day = text.len() == "2026-11-22".len();
        Ok(match text.parse() {
            Ok(day) if is_day => When::Day(day),
            _ => When::At(at),
        })
    }

    pub(super) fn of(self, zone: &Zone) -> Timestamp {
        match self {
            When::At(at) => at,
            When::Day(day) => zone.begin(day),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_day_begins_at_its_zones_midnight_and_a_time_is_the_same_in_all() {
        let of = |text: &str, zone: &str| When::parse(text).unwrap().of(&parse_zone(zone).unwrap()).0;
        let midnight = of("2026-11-22", "UTC");
        assert_eq!(midnight, 1_795_305_600_000);
        assert_eq!(of("2026-11-22", "Europe/Berlin"), midnight - 3_600_000);
        assert_eq!(of("2026-11-22", "Asia/Kolkata"), midnight - 19_800_000);
        assert_eq!(of("2026-11-22T00:00:00Z", "Asia/Kolkata"), midnight);
        for wrong in ["", "yesterday", "2026-13-01"] {
            When::parse(wrong).unwrap_err();
        }
        assert!(parse_zone("Nowhere").is_err());
        let shown = |value: Value| shown(&value, &parse_zone("Asia/Kolkata").unwrap());
        assert_eq!(shown("2026-11-22T06:00:57.624Z".into()), "2026-11-22 11:30:57");
        assert_eq!(
            (shown(Value::Null), shown("x\u{1b}".into())),
            ("-".into(), "x\\u{1b}".into())
        );
    }
}
