//! Values with a unit, as people write them: `"30s"`, `"64KiB"`, `"200/s"`.

use std::{fmt, str::FromStr, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time: `"30s"`, `"1h 30m"`, `"0s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Ten years: whatever is added to a time that there is gives a time again.
    pub const MAX: Span = Span::seconds(3650 * 86_400);

    /// So many seconds.
    #[must_use]
    pub const fn seconds(n: u64) -> Span {
        Span(Duration::from_secs(n))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let length = humantime::parse_duration(text).map_err(|_| {
            format!("`{text}` is no duration; write one like \"30s\", \"5m\", \"72h\" or \"30d\"")
        })?;
        if length > Span::MAX.0 {
            return Err(format!(
                "`{text}` is too long; the longest is \"3650d\", which is ten years"
            ));
        }
        Ok(Span(length))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes: `"64KiB"`, `"1MB"`, `"512B"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        text.parse::<ByteSize>()
            .map(|size| Size(size.as_u64()))
            .map_err(|_| format!("`{text}` is no size; write one like \"512B\", \"64KiB\" or \"1MiB\""))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        // The largest unit that gives a whole number, so that nothing is rounded away.
        match UNITS
            .iter()
            .find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// So many in so long: `"200/s"`, `"30/m"`, or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// At most `count` in `per`.
    Limited {
        /// Never 0.
        count: u32,
        /// A second, a minute or an hour.
        per: Duration,
    },
    /// No limit.
    Unlimited,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        if text == "unlimited" {
            return Ok(Rate::Unlimited);
        }
        let wrong =
            || format!("`{text}` is no rate; write one like \"200/s\", \"30/m\", \"500/h\" or \"unlimited\"");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        if count == 0 {
            return Err(format!(
                "`{text}` would never send anything; pause the endpoint instead, or write \"unlimited\""
            ));
        }
        Ok(Rate::Limited {
            count,
            per: Duration::from_secs(seconds),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Unlimited => f.write_str("unlimited"),
            Rate::Limited { count, per } => {
                let unit = match per.as_secs() {
                    3600 => "h",
                    60 => "m",
                    _ => "s",
                };
                write!(f, "{count}/{unit}")
            }
        }
    }
}

/// A string in the file, parsed by `FromStr`, so that its errors are the ones above.
macro_rules! as_string {
    ($name:ident, $expected:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

as_string!(Span, "a duration in quotes, like \"30s\"");
as_string!(Size, "a size in quotes, like \"64KiB\"");
as_string!(Rate, "a rate in quotes, like \"200/s\"");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_as_people_write_them() {
        assert_eq!("0s".parse(), Ok(Span::seconds(0)));
        assert_eq!("72h".parse(), Ok(Span::seconds(72 * 3600)));
        assert_eq!("30d".parse(), Ok(Span::seconds(30 * 86400)));
        assert_eq!("1h 30m".parse(), Ok(Span::seconds(5400)));
        assert_eq!("64KiB".parse(), Ok(Size(65536)));
        assert_eq!("1MB".parse(), Ok(Size(1_000_000)));
        assert_eq!("0B".parse(), Ok(Size(0)));
        assert_eq!(
            "200/s".parse(),
            Ok(Rate::Limited {
                count: 200,
                per: Duration::from_secs(1)
            })
        );
        assert_eq!("unlimited".parse(), Ok(Rate::Unlimited));
        for wrong in ["", "30", "s", "-5s", "5 parsecs"] {
            wrong.parse::<Span>().unwrap_err();
        }
        assert_eq!("3650d".parse(), Ok(Span::MAX));
        for too_long in ["3651d", "100years", "18446744073709551615s"] {
            let error = too_long.parse::<Span>().unwrap_err();
            assert!(error.contains("3650d"), "{error}");
        }
        for wrong in ["", "KiB", "-1KiB", "64 bananas"] {
            wrong.parse::<Size>().unwrap_err();
        }
        for wrong in ["", "200", "0/s", "-1/s", "200/fortnight", "/s"] {
            wrong.parse::<Rate>().unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(seconds in 0u64..10_000_000, bytes in 0u64..1 << 52, count in 1u32.., unit in 0usize..3) {
            let span = Span::seconds(seconds);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let size = Size(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let rate = Rate::Limited { count, per: Duration::from_secs([1, 60, 3600][unit]) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
