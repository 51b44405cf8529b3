//! Which events an endpoint hears of: by source, realm and labels.

use turnhook_reducer::event::SessionEvent;

/// All of its conditions must hold. The default lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these sources; empty: any at all.
    pub sources: Vec<Pattern>,
    /// Any of these realms; empty: any at all, and where there is none.
    pub realms: Vec<Pattern>,
    /// Each of these labels.
    pub labels: Vec<(String, Pattern)>,
}

/// A text in which `*` stands for anything, also for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// From the configuration.
    #[must_use]
    pub fn new(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }

    /// The one text that it matches, if it is one.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// Whether it matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut p, mut t) = (0, 0);
        // Where the last star stands, and how much it has taken: only the last one ever has to take more.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p, t));
                p += 1;
            } else if pattern.get(p) == text.get(t) {
                p += 1;
                t += 1;
            } else if let Some((at, taken)) = star {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl Filter {
    /// Whether an endpoint with this filter hears of an event.
    #[must_use]
    pub fn lets_through(&self, event: &SessionEvent) -> bool {
        self.lets_session_through(&event.source, &event.realm, |name| {
            let label = event.labels.iter().find(|(label, _)| **label == *name);
            label.map(|(_, value)| &**value)
        })
    }

    /// Whether an endpoint with this filter hears of a session of this source and realm, with the labels that `label` knows.
    #[must_use]
    pub fn lets_session_through<'a>(
        &self,
        source: &str,
        realm: &[u8],
        label: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> bool {
        any(&self.sources, source.as_bytes())
            && any(&self.realms, realm)
            && self
                .labels
                .iter()
                .all(|(name, pattern)| label(name).is_some_and(|value| pattern.matches(value)))
    }

    /// Whether an endpoint with this filter hears of a user in a realm (`None`: in every one), by the realm alone; `None`
    /// where that depends on the sessions that he has had.
    #[must_use]
    pub fn lets_user_through(&self, realm: Option<&[u8]>) -> Option<bool> {
        let of_all = |patterns: &[Pattern]| patterns.is_empty() || patterns.iter().any(Pattern::is_all);
        match realm {
            Some(realm) if !any(&self.realms, realm) => Some(false),
            None if !of_all(&self.realms) => None,
            _ => (of_all(&self.sources) && self.labels.is_empty()).then_some(true),
        }
    }

    /// Whether there is certainly no event that both let through.
    #[must_use]
    pub fn excludes(&self, other: &Filter) -> bool {
        let apart = |ours: &[Pattern], theirs: &[Pattern]| {
            !ours.is_empty()
                && !theirs.is_empty()
                && ours.iter().all(|a| theirs.iter().all(|b| a.is_apart(b)))
        };
        apart(&self.sources, &other.sources)
            || apart(&self.realms, &other.realms)
            || self.labels.iter().any(|(name, ours)| {
                let theirs = other.labels.iter().find(|(other, _)| other == name);
                theirs.is_some_and(|(_, theirs)| ours.is_apart(theirs))
            })
    }
}

/// Whether one of them matches; where there are none, everything does.
fn any(patterns: &[Pattern], text: &[u8]) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
}

impl Pattern {
    /// Whether everything matches.
    fn is_all(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether no text matches both, as far as that is easily seen.
    fn is_apart(&self, other: &Pattern) -> bool {
        match (self.literal(), other.literal()) {
            (Some(text), _) => !other.matches(text.as_bytes()),
            (None, Some(text)) => !self.matches(text.as_bytes()),
            (None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;

    use proptest::prelude::*;
    use turnhook_reducer::{event::EventType, time::Timestamp};

    use super::*;
    use crate::samples::{self, Case};

    fn filter(sources: &[&str], realms: &[&str], labels: &[(&str, &str)]) -> Filter {
        Filter {
            sources: sources.iter().map(|text| Pattern::new(text)).collect(),
            realms: realms.iter().map(|text| Pattern::new(text)).collect(),
            labels: labels
                .iter()
                .map(|(name, text)| ((*name).to_owned(), Pattern::new(text)))
                .collect(),
        }
    }

    #[test]
    fn a_tenants_endpoint_hears_of_that_tenant_alone() {
        let mut event = samples::event(EventType::End, Case::Exact, Timestamp(1 << 40));
        event.labels = vec![(Arc::from("tenant"), Box::from(*b"acme"))];
        for (heard, of) in [
            (true, filter(&[], &[], &[])),
            (true, filter(&["*"], &["*"], &[])),
            (true, filter(&["eu-*", "sam*"], &["*.org"], &[("tenant", "acme")])),
            (false, filter(&["eu-*"], &[], &[])),
            (false, filter(&[], &["example.com"], &[])),
            (false, filter(&[], &[], &[("tenant", "acm")])),
            (false, filter(&[], &[], &[("tenant", "acme"), ("plan", "*")])),
        ] {
            assert_eq!(of.lets_through(&event), heard, "{of:?}");
        }
    }

    #[test]
    fn of_a_user_the_realm_decides_where_nothing_else_is_asked() {
        let labels = filter(&[], &["*.org"], &[("tenant", "acme")]);
        for (of, there, elsewhere, everywhere) in [
            (Filter::default(), Some(true), Some(true), Some(true)),
            (filter(&["*"], &["*"], &[]), Some(true), Some(true), Some(true)),
            (filter(&[], &["*.org"], &[]), Some(true), Some(false), None),
            (filter(&["eu-*"], &["*"], &[]), None, None, None),
            (labels, None, Some(false), None),
        ] {
            assert_eq!(of.lets_user_through(Some(b"example.org")), there, "{of:?}");
            assert_eq!(of.lets_user_through(Some(b"example.com")), elsewhere, "{of:?}");
            assert_eq!(of.lets_user_through(None), everywhere, "{of:?}");
        }
    }

    #[test]
    fn what_excludes_each_other() {
        let a = filter(&[], &[], &[("tenant", "a")]);
        assert!(a.excludes(&filter(&["*"], &["*"], &[("tenant", "b*")])));
        assert!(!a.excludes(&filter(&[], &[], &[("tenant", "a*")])));
        assert!(!a.excludes(&filter(&[], &[], &[("plan", "b")])));
        assert!(!a.excludes(&Filter::default()));
        assert!(filter(&["eu-1", "eu-2"], &[], &[]).excludes(&filter(&["us-*"], &[], &[])));
    }

    proptest! {
        #[test]
        fn stars_match_as_the_definition_says(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            fn defined(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|n| defined(rest, &text[n..])),
                    Some((byte, rest)) => text.first() == Some(byte) && defined(rest, &text[1..]),
                }
            }
            let matched = Pattern::new(&pattern).matches(text.as_bytes());
            prop_assert_eq!(matched, defined(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
