//! `[[quota]]`.

use std::time::Duration;

use turnhook_dispatcher::filter::{Filter, Pattern};

use super::{Check, key_path, provider::patterns};
use crate::config::{
    Span,
    file::{self, File},
    locate::Step,
    quota::{Most, Per, Quota},
};

const DAY: Duration = Duration::from_secs(86_400);

impl Check<'_> {
    pub(super) fn quotas(&mut self, file: &File) -> Vec<Quota> {
        let all = file.quota.iter().enumerate();
        all.filter_map(|(index, quota)| self.quota(index, quota, file))
            .collect()
    }

    fn quota(&mut self, index: usize, quota: &file::Quota, file: &File) -> Option<Quota> {
        let most = match (quota.bytes, quota.seconds) {
            (Some(_), Some(_)) => self.wrong(
                &key_path!["quota", index, "seconds"],
                "`bytes` is given too; keep one of the two, or make a [[quota]] of each",
            ),
            (None, None) => self.wrong(
                &key_path!["quota", index, "bytes"],
                "missing; how much a user may relay, like bytes = \"50GiB\", or how long his sessions may last, like \
                 seconds = 36000",
            ),
            (Some(bytes), None) if bytes.0 == 0 => self.wrong(
                &key_path!["quota", index, "bytes"],
                "is 0: whoever relays anything would be blocked; it is at least \"1B\"",
            ),
            (None, Some(0)) => self.wrong(
                &key_path!["quota", index, "seconds"],
                "is 0: everybody would be blocked; it is at least 1",
            ),
            (Some(bytes), None) => Some(Most::Bytes(bytes.0)),
            (None, Some(seconds)) => Some(Most::Millis(seconds.saturating_mul(1000))),
        };
        if quota.realms.is_empty() {
            self.wrong::<()>(
                &key_path!["quota", index, "realms"],
                "is empty: it would hold for nobody; leave it out for all realms",
            );
        }
        for label in quota.labels.keys() {
            if !file.session.user_pattern.contains(&format!("<{label}>")) {
                self.wrong::<()>(
                    &key_path!["quota", index, "labels", label.as_str()],
                    format!("[session] user_pattern has no group `{label}`, so no session has this label"),
                );
            }
        }
        if quota.across_realms && quota.per == Per::Session {
            self.wrong::<()>(
                &key_path!["quota", index, "across_realms"],
                "a session has one realm; this is for `per = \"day\"` and `per = \"month\"`",
            );
        }
        if index == 0 && file.session.usage_interval == Span::seconds(0) {
            self.wrong::<()>(
                &key_path!["session", "usage_interval"],
                "is 0s, and there is a [[quota]]: what a session has used would be known at its end alone",
            );
        }
        let long = match quota.per {
            Per::Session => Duration::ZERO,
            Per::Day => DAY,
            Per::Month => 31 * DAY,
        };
        if quota.seconds.is_some() && file.store.retention.0 < long {
            self.doubtful(
                &key_path!["store", "retention"],
                format!(
                    "{} is shorter than a {}: sessions that were removed by then are not counted in `seconds` of a [[quota]]",
                    file.store.retention,
                    quota.per.as_str()
                ),
            );
        }
        if index == 0 && file.control.is_empty() {
            self.doubtful(
                &key_path!["quota", index, "per"],
                "there is no [[control]]: whoever passes a quota is put on the list of blocks, and his allocations go on",
            );
        }
        Some(Quota {
            per: quota.per,
            most: most?,
            filter: Filter {
                sources: Vec::new(),
                realms: patterns(&quota.realms),
                labels: quota
                    .labels
                    .iter()
                    .map(|(name, text)| (name.clone(), Pattern::new(text)))
                    .collect(),
            },
            across_realms: quota.across_realms,
        })
    }
}
