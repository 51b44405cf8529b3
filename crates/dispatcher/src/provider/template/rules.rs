//! What answers mean, by rules of the configuration.
//!
//! In this order: `hold`, `duplicate`, `early`, `retry`, `rejected`, `failed_items`; then the status alone.

use serde_json::Value as Json;

use super::{
    super::product::ItemVerdict,
    Answer, Decoded, Item, answers,
    options::{Options, Rule},
};

impl Options {
    /// `None` where no rule says anything, and the status decides.
    pub(super) fn decode(&self, answer: &Answer<'_>, items: &[Item]) -> Option<Decoded> {
        let body = String::from_utf8_lossy(answer.body).to_lowercase();
        let is = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(answer.status, &body));
        // Of several items such an answer does not say which one is meant.
        let lone = |verdict: ItemVerdict| match items {
            [_] => Decoded::all(verdict, items),
            _ => Decoded::Halve(answers::words(answer)),
        };
        if is(&self.hold) {
            return Some(Decoded::all(ItemVerdict::Held(answers::words(answer)), items));
        }
        if is(&self.duplicate) {
            return Some(lone(ItemVerdict::Duplicate));
        }
        if is(&self.early) {
            return Some(lone(ItemVerdict::TooEarly));
        }
        if is(&self.retry) {
            return Some(Decoded::all(ItemVerdict::Retry(answers::after(answer)), items));
        }
        if is(&self.rejected) {
            return Some(lone(ItemVerdict::Rejected(answers::words(answer))));
        }
        let taken = (200..300).contains(&answer.status);
        let success = if self.accepted {
            ItemVerdict::Accepted
        } else {
            ItemVerdict::Delivered
        };
        let others = match answer.status {
            _ if taken => success.clone(),
            400..=499 if self.all_or_nothing => ItemVerdict::Retry(None),
            _ => ItemVerdict::Uncertain(None),
        };
        self.failures(answer, items, &others)
            .or_else(|| taken.then(|| Decoded::all(success, items)))
    }

    fn failures(&self, answer: &Answer<'_>, items: &[Item], others: &ItemVerdict) -> Option<Decoded> {
        let rule = self.failed_items.as_ref()?;
        let body: Json = serde_json::from_slice(answer.body).ok()?;
        let mut list = &body;
        for name in rule.path.split('.').filter(|name| !name.is_empty()) {
            list = list.get(name)?;
        }
        let list = list.as_array()?;
        let id_of = |failed: &Json| match &rule.id {
            Some(field) => failed.get(field).and_then(Json::as_str).map(str::to_owned),
            None => failed.as_str().map(str::to_owned),
        };
        let mut named = false;
        let verdicts = items
            .iter()
            .map(|item| {
                let failed = list
                    .iter()
                    .find(|failed| id_of(failed).as_deref() == Some(item.id.as_str()));
                let Some(failed) = failed else {
                    return others.clone();
                };
                named = true;
                let reason = rule.reason.as_ref().and_then(|field| failed.get(field));
                let reason = reason.map_or_else(|| failed.to_string(), plain);
                ItemVerdict::Rejected(
                    format!("answered {}: {reason}", answer.status)
                        .chars()
                        .take(300)
                        .collect(),
                )
            })
            .collect();
        named.then_some(Decoded::Each(verdicts))
    }
}

fn plain(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}
