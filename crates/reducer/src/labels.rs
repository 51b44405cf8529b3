//! Texts that coturn repeats (servers' addresses, transports, ciphers) are kept once, and so are the sets
//! of them that statuses name together.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::intern::NONE;

/// Texts of which there are few: servers' addresses, transports, TLS versions and ciphers.
/// They are kept for good, so their number is bounded; past the bound a text is left out.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    texts: Vec<Box<[u8]>>,
    table: HashTable<u32>,
    sets: Vec<LabelSet>,
    numbers: HashMap<LabelSet, u16>,
    hasher: DefaultHashBuilder,
}

const MOST_LABELS: usize = 1 << 16;

/// The labels of a status, by their slots: the same for thousands of allocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LabelSet {
    /// The server's address.
    pub(crate) local: u32,
    pub(crate) transport: u32,
    pub(crate) tls_version: u32,
    pub(crate) tls_cipher: u32,
}

/// The texts of a [`LabelSet`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelTexts<'a> {
    pub(crate) local: Option<&'a [u8]>,
    pub(crate) transport: Option<&'a [u8]>,
    pub(crate) tls_version: Option<&'a [u8]>,
    pub(crate) tls_cipher: Option<&'a [u8]>,
}

impl LabelSet {
    const NONE: LabelSet = LabelSet {
        local: NONE,
        transport: NONE,
        tls_version: NONE,
        tls_cipher: NONE,
    };
}

/// The number of the set that has no labels, and of all that there is no number left for.
pub(crate) const NO_LABELS: u16 = u16::MAX;

impl Labels {
    fn slot(&mut self, text: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(text);
        let found = self.table.find(hash, |slot| {
            self.texts.get(*slot as usize).is_some_and(|t| &**t == text)
        });
        if let Some(slot) = found.copied() {
            return slot;
        }
        if self.texts.len() >= MOST_LABELS {
            return NONE;
        }
        let slot = self.texts.len() as u32;
        self.texts.push(text.into());
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.table.insert_unique(hash, slot, |slot| {
            texts.get(*slot as usize).map_or(0, |t| hasher.hash_one(&**t))
        });
        slot
    }

    fn optional(&mut self, text: Option<&[u8]>) -> u32 {
        text.map_or(NONE, |t| self.slot(t))
    }

    /// The number of the set with these texts.
    pub(crate) fn number_of(&mut self, texts: LabelTexts<'_>) -> u16 {
        let set = LabelSet {
            local: self.optional(texts.local),
            transport: self.optional(texts.transport),
            tls_version: self.optional(texts.tls_version),
            tls_cipher: self.optional(texts.tls_cipher),
        };
        self.number(set)
    }

    /// The texts of the set with this number.
    pub(crate) fn texts(&self, number: u16) -> LabelTexts<'_> {
        let set = self.set(number);
        LabelTexts {
            local: self.get(set.local),
            transport: self.get(set.transport),
            tls_version: self.get(set.tls_version),
            tls_cipher: self.get(set.tls_cipher),
        }
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&[u8]> {
        self.texts.get(slot as usize).map(|t| &**t)
    }

    pub(crate) fn owned(&self, slot: u32) -> Option<Box<[u8]>> {
        self.get(slot).map(Into::into)
    }

    /// The number of a set; like a text, it is kept for good, and is left out if there are too many.
    fn number(&mut self, set: LabelSet) -> u16 {
        if set == LabelSet::NONE {
            return NO_LABELS;
        }
        if let Some(number) = self.numbers.get(&set) {
            return *number;
        }
        let number = u16::try_from(self.sets.len()).unwrap_or(NO_LABELS);
        if number != NO_LABELS {
            self.sets.push(set);
            self.numbers.insert(set, number);
        }
        number
    }

    pub(crate) fn set(&self, number: u16) -> LabelSet {
        self.sets
            .get(usize::from(number))
            .copied()
            .unwrap_or(LabelSet::NONE)
    }

    /// The set with the labels of `new`, and those of `old` that `new` does not have.
    pub(crate) fn update(&mut self, old: u16, new: u16) -> u16 {
        if old == new || new == NO_LABELS {
            return old;
        }
        let (old, new) = (self.set(old), self.set(new));
        let or = |new: u32, old: u32| if new == NONE { old } else { new };
        self.number(LabelSet {
            local: or(new.local, old.local),
            transport: or(new.transport, old.transport),
            tls_version: or(new.tls_version, old.tls_version),
            tls_cipher: or(new.tls_cipher, old.tls_cipher),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(local: u32, transport: u32) -> LabelSet {
        LabelSet {
            local,
            transport,
            ..LabelSet::NONE
        }
    }

    #[test]
    fn a_set_has_one_number_until_there_are_too_many() {
        let mut labels = Labels::default();
        assert_eq!(labels.number(LabelSet::NONE), NO_LABELS);
        assert_eq!(labels.set(NO_LABELS), LabelSet::NONE);
        for n in 0..65_535 {
            assert_eq!(labels.number(set(n, 1)), n as u16);
        }
        assert_eq!(labels.number(set(65_535, 1)), NO_LABELS);
        assert_eq!(labels.number(set(65_534, 1)), 65_534);
        assert_eq!(labels.set(65_534), set(65_534, 1));
    }

    /// Whoever has the source's password can make up as many ciphers as he likes. Each is at most as long as a value of
    /// a message may be (`decode` of the subscriber), so that all of them together have a bound in bytes.
    #[test]
    fn texts_are_kept_until_there_are_too_many() {
        const LONGEST: usize = 255;
        let mut labels = Labels::default();
        let text = |n: usize| format!("{n:0>LONGEST$}").into_bytes();
        for n in 0..MOST_LABELS + 1_000 {
            let slot = labels.slot(&text(n));
            assert_eq!(slot == NONE, n >= MOST_LABELS, "{n}");
        }
        let bytes: usize = labels.texts.iter().map(|text| text.len()).sum();
        assert_eq!(
            (labels.texts.len(), labels.table.len()),
            (MOST_LABELS, MOST_LABELS)
        );
        assert!(bytes <= 16 << 20, "{bytes}");
        assert_eq!(labels.slot(&text(5)), 5, "what was there before is known");
    }

    #[test]
    fn what_a_status_does_not_say_stays() {
        let mut labels = Labels::default();
        let [both, local, other] = [set(1, 2), set(1, NONE), set(3, NONE)].map(|s| labels.number(s));
        assert_eq!(labels.update(both, NO_LABELS), both);
        assert_eq!(labels.update(both, local), both);
        assert_eq!(labels.update(NO_LABELS, local), local);
        let updated = labels.update(both, other);
        assert_eq!(labels.set(updated), set(3, 2));
    }
}
