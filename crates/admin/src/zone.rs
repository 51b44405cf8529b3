//! Time zones: whose midnight a day begins at. Their rules are the system's, or those that came with this program where the
//! system has none.

use jiff::{
    Timestamp as Instant, ToSpan as _,
    civil::Date,
    tz::{TimeZone, TimeZoneDatabase},
};
use turnhook_reducer::time::Timestamp;
use turnhook_store::QUARTER_MS;

use crate::Refused;

/// A zone by its name.
#[derive(Clone, Debug)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone::utc()
    }
}

impl Zone {
    /// UTC.
    #[must_use]
    pub fn utc() -> Zone {
        Zone {
            name: "UTC".to_owned(),
            zone: TimeZone::UTC,
        }
    }

    /// By its name in the time zone database; UTC without one.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: Option<&str>) -> Result<Zone, Refused> {
        let Some(name) = name.filter(|name| *name != "UTC") else {
            return Ok(Zone::utc());
        };
        let found = jiff::tz::db()
            .get(name)
            .or_else(|_| TimeZoneDatabase::bundled().get(name));
        match found {
            Ok(zone) => Ok(Zone {
                name: name.to_owned(),
                zone,
            }),
            Err(_) => Err(Refused::wrong(format!(
                "`tz` is a zone's name like Europe/Berlin, not {name:?}"
            ))),
        }
    }

    /// As it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its days are those of UTC.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        self.name == "UTC"
    }

    /// `2026-11-22 06:00:57`.
    #[must_use]
    pub fn show(&self, at: Timestamp) -> String {
        let zoned = instant(at).to_zoned(self.zone.clone());
        zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The day that a time is on.
    #[must_use]
    pub fn day(&self, at: Timestamp) -> Date {
        instant(at).to_zoned(self.zone.clone()).date()
    }

    /// The hour that a quarter of an hour begins in, as `2026-11-22 06:00`, with how far it is from UTC: an hour that comes
    /// twice is two.
    #[must_use]
    pub fn hour(&self, at: Timestamp) -> String {
        let zoned = instant(at).to_zoned(self.zone.clone());
        let form = if self.is_utc() {
            "%Y-%m-%dT%H:00Z"
        } else {
            "%Y-%m-%dT%H:00%:z"
        };
        zoned.strftime(form).to_string()
    }

    /// When a day begins.
    #[must_use]
    pub fn begin(&self, day: Date) -> Timestamp {
        let begins = day.to_zoned(self.zone.clone()).map(|zoned| zoned.timestamp());
        let millis = begins.map_or(0, Instant::as_millisecond);
        Timestamp(u64::try_from(millis).unwrap_or(0))
    }

    pub(crate) fn parse(&self, text: &str) -> Option<Timestamp> {
        if let Ok(day) = text.parse::<Date>()
            && text.len() == 10
        {
            return Some(self.begin(day));
        }
        let instant: Instant = text.parse().ok()?;
        // Nothing was before 1970.
        Some(Timestamp(u64::try_from(instant.as_millisecond()).unwrap_or(0)))
    }
}

fn instant(at: Timestamp) -> Instant {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    Instant::from_millisecond(millis).unwrap_or(Instant::MAX)
}

/// Days of a zone, both included.
#[derive(Clone, Debug)]
pub struct Period {
    /// Whose days.
    pub zone: Zone,
    /// The first.
    pub from: Date,
    /// The last.
    pub to: Date,
}

impl Period {
    /// From its first moment to the first after it.
    #[must_use]
    pub fn times(&self) -> (Timestamp, Timestamp) {
        let after = self.to.checked_add(1.day()).unwrap_or(Date::MAX);
        (self.zone.begin(self.from), self.zone.begin(after))
    }

    /// The quarters of an hour of that time: every zone's midnight is at one.
    #[must_use]
    pub fn quarters(&self) -> (u64, u64) {
        let (from, to) = self.times();
        (from.0 / QUARTER_MS, to.0 / QUARTER_MS)
    }

    /// As many days right before it.
    #[must_use]
    pub fn before(&self) -> Period {
        let days = self.from.until(self.to).map_or(0, |span| span.get_days()) + 1;
        let back = |day: Date| day.checked_sub(days.days()).unwrap_or(Date::MIN);
        Period {
            zone: self.zone.clone(),
            from: back(self.from),
            to: back(self.to),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_of_zones() {
        let period = |tz: &str, from: &str, to: &str| {
            let zone = Zone::named(Some(tz)).unwrap();
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            Period { zone, from, to }
        };
        let hours = |period: &Period| {
            let (from, to) = period.times();
            (to.0 - from.0) / 3_600_000
        };
        // The clocks go back on the 25th of October 2026, and forward on the 29th of March.
        assert_eq!(hours(&period("Europe/Berlin", "2026-10-25", "2026-10-25")), 25);
        assert_eq!(hours(&period("Europe/Berlin", "2026-03-29", "2026-03-29")), 23);
        for tz in [
            "Asia/Kolkata",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Pacific/Chatham",
            "UTC",
        ] {
            let (from, to) = period(tz, "2026-11-01", "2026-11-30").times();
            assert_eq!((from.0 % QUARTER_MS, to.0 % QUARTER_MS), (0, 0), "{tz}");
        }
        let before = period("UTC", "2026-11-01", "2026-11-30").before();
        assert_eq!(
            (before.from.to_string(), before.to.to_string()),
            ("2026-10-02".into(), "2026-10-31".into())
        );
        assert!(Zone::named(Some("Nowhere/At_All")).is_err());
        let zone = Zone::named(Some("Europe/Berlin")).unwrap();
        assert_eq!(
            zone.parse("2026-11-22").unwrap(),
            zone.parse("2026-11-21T23:00:00Z").unwrap()
        );
        assert_eq!(zone.parse("1960-01-01T00:00:00Z").unwrap(), Timestamp(0));
        assert_eq!(zone.parse("1960-01-01").unwrap(), Timestamp(0));
        assert_eq!(zone.show(Timestamp(1_795_327_257_624)), "2026-11-22 07:00:57");
    }
}
