//! Time is an input: the reducer never asks a clock.

/// Milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The latest representable time; used as "never".
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// Later by `millis`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, millis: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this; 0 if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A [`Timestamp`] in six bytes, for what is kept a million times: up to the year 10889. What is later is
/// "never", as [`Timestamp::MAX`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment([u16; 3]);

impl Moment {
    /// All ones.
    const LAST: u64 = (1 << 48) - 1;
    /// [`Timestamp::MAX`].
    pub(crate) const NEVER: Moment = Moment([u16::MAX; 3]);

    #[inline(always)]
    pub(crate) fn get(self) -> Timestamp {
        let [low, middle, high] = self.0.map(u64::from);
        let millis = low | middle << 16 | high << 32;
        Timestamp(if millis == Moment::LAST { u64::MAX } else { millis })
    }
}

impl From<Timestamp> for Moment {
    #[inline(always)]
    fn from(at: Timestamp) -> Moment {
        let millis = at.0.min(Moment::LAST);
        Moment([millis as u16, (millis >> 16) as u16, (millis >> 32) as u16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_timestamp_that_it_was_made_of() {
        for millis in [0, 1, 65_535, 65_536, 1_795_413_657_123, Moment::LAST - 1] {
            assert_eq!(Moment::from(Timestamp(millis)).get(), Timestamp(millis));
        }
        for millis in [Moment::LAST, Moment::LAST + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(Moment::from(Timestamp(millis)), Moment::NEVER);
            assert_eq!(Moment::from(Timestamp(millis)).get(), Timestamp::MAX);
        }
        assert_eq!((size_of::<Moment>(), align_of::<Moment>()), (6, 2));
    }
}
