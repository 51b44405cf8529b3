//! The last day, a point a minute, in memory: what is older is Prometheus's to keep.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use turnhook_reducer::time::Timestamp;

use crate::{Engine, StatusNow, actions::now};

/// Points that are kept.
pub(crate) const POINTS: usize = 24 * 60;
const EVERY: Duration = Duration::from_secs(60);

/// What a line is of: a source or an endpoint, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    OpenSessions(String),
    /// In the minute before.
    Messages(String),
    Backlog(String),
    /// Its age, in seconds.
    Age(String),
    /// Of an endpoint, by outcome, in the minute before.
    Deliveries(String, String),
}

/// A point in time, and what every line was then.
#[derive(Clone, Debug, Default)]
struct Point {
    at: Timestamp,
    values: BTreeMap<Line, f64>,
}

/// All points, and what counters were at the last.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    points: VecDeque<Point>,
    counted: BTreeMap<Line, u64>,
}

impl History {
    /// Looks once a minute, for as long as it is polled.
    pub async fn watch(self: Arc<History>, engine: Arc<dyn Engine>) {
        loop {
            self.look(now(), &engine.status());
            tokio::time::sleep(EVERY).await;
        }
    }

    #[allow(clippy::cast_precision_loss)] // it is drawn
    pub(crate) fn look(&self, at: Timestamp, status: &StatusNow) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = BTreeMap::new();
        let mut counted = BTreeMap::new();
        for source in &status.sources {
            values.insert(
                Line::OpenSessions(source.name.clone()),
                source.open_sessions as f64,
            );
            let all = source.messages.iter().map(|(_, count)| count).sum();
            counted.insert(Line::Messages(source.name.clone()), all);
        }
        for endpoint in &status.endpoints {
            values.insert(Line::Backlog(endpoint.name.clone()), endpoint.pending as f64);
            let age = endpoint.oldest_pending_seconds.unwrap_or_default();
            values.insert(Line::Age(endpoint.name.clone()), age);
            for (outcome, count) in &endpoint.outcomes {
                counted.insert(Line::Deliveries(endpoint.name.clone(), outcome.clone()), *count);
            }
        }
        for (line, count) in &counted {
            // Without a point before there is no minute before.
            if let Some(before) = kept.counted.get(line) {
                values.insert(line.clone(), count.saturating_sub(*before) as f64);
            }
        }
        kept.counted = counted;
        kept.points.push_back(Point { at, values });
        while kept.points.len() > POINTS {
            kept.points.pop_front();
        }
    }

    /// A line's points.
    pub(crate) fn line(&self, line: &Line) -> Vec<(Timestamp, f64)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let points = kept.points.iter();
        points
            .filter_map(|point| Some((point.at, *point.values.get(line)?)))
            .collect()
    }

    /// The outcomes that an endpoint has had.
    pub(crate) fn outcomes(&self, endpoint: &str) -> Vec<Line> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = kept.counted.keys();
        lines
            .filter(|line| matches!(line, Line::Deliveries(of, _) if of == endpoint))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceNow;

    #[test]
    fn a_day_is_kept_and_counters_become_rates() {
        let history = History::default();
        for minute in 0..POINTS as u64 + 10 {
            let source = SourceNow {
                name: "eu-1".to_owned(),
                open_sessions: minute,
                messages: vec![("new".to_owned(), minute * 3), ("deleted".to_owned(), minute)],
                ..SourceNow::default()
            };
            let status = StatusNow {
                sources: vec![source],
                ..StatusNow::default()
            };
            history.look(Timestamp(minute * 60_000), &status);
        }
        let open = history.line(&Line::OpenSessions("eu-1".to_owned()));
        assert_eq!((open.len(), open[0]), (POINTS, (Timestamp(600_000), 10.0)));
        let messages = history.line(&Line::Messages("eu-1".to_owned()));
        assert!(
            messages
                .iter()
                .all(|(_, count)| (*count - 4.0).abs() < f64::EPSILON)
        );
        assert!(history.line(&Line::Backlog("billing".to_owned())).is_empty());
    }
}
