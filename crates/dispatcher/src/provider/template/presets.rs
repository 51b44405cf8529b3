//! Templates for products whose ingest needs nothing more, as far as their makers' pages and code say.
//!
//! No account of any of them was used. What is not known was taken in the way that cannot bill twice; the page of each in
//! `examples/billing/` says which that is.

use serde_json::{Map, Value as Json};

use super::{
    Settings, Wrong,
    options::{FailedItems, Grouping, Options, Rule, Unknown},
};

/// A product that needs no file of its own.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// Where it usually is.
    pub(super) url: Option<&'static str>,
    /// What to watch where a 2xx is only a promise.
    pub(super) accepted: Option<&'static str>,
    pub(super) options: fn() -> Options,
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "flexprice",
        url: None,
        accepted: Some("Flexprice takes all that is well formed: watch its webhook event.rejected"),
        options: flexprice,
    },
    Preset {
        name: "m3ter",
        url: None,
        accepted: Some("m3ter looks at measurements after it took them: watch its ingest failures"),
        options: m3ter,
    },
    Preset {
        name: "amberflo",
        url: Some("https://ingest.amberflo.io"),
        accepted: Some("Amberflo looks at records after it took them"),
        options: amberflo,
    },
    Preset {
        name: "meteroid",
        url: None,
        accepted: None,
        options: meteroid,
    },
    Preset {
        name: "dodo",
        url: Some("https://live.dodopayments.com"),
        accepted: None,
        options: dodo,
    },
    Preset {
        name: "creem",
        url: Some("https://api.creem.io"),
        accepted: None,
        options: creem,
    },
    Preset {
        name: "autumn",
        url: Some("https://api.useautumn.com"),
        accepted: None,
        options: autumn,
    },
    Preset {
        name: "airwallex",
        url: Some("https://api.airwallex.com"),
        accepted: Some("Airwallex aggregates later: watch its webhook usage_event.aggregation_failed"),
        options: airwallex,
    },
    Preset {
        name: "chargebee",
        url: None,
        accepted: Some("Chargebee looks at usage events after it took them"),
        options: chargebee,
    },
    Preset {
        name: "recurly",
        url: Some("https://v3.recurly.com"),
        accepted: None,
        options: recurly,
    },
];

fn find(name: &str) -> Result<&'static Preset, String> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        format!("there is no preset `{name}`; there are {}", names.join(", "))
    })
}

impl Options {
    /// The options of an endpoint, laid over those of its preset.
    pub(super) fn read(settings: &Settings) -> Result<(Options, Option<&'static Preset>), Wrong> {
        let wrong = |problem: String| Wrong {
            key: "options",
            problem,
        };
        let own: Options = settings.options()?;
        let preset = match &own.preset {
            Some(name) => Some(find(name).map_err(wrong)?),
            None => None,
        };
        let options = match preset {
            Some(preset) => laid_over((preset.options)(), &settings.options).map_err(wrong)?,
            None => own,
        };
        options.check().map_err(wrong)?;
        Ok((options, preset))
    }
}

/// A preset with what an endpoint says itself.
fn laid_over(preset: Options, own: &Map<String, Json>) -> Result<Options, String> {
    let Ok(Json::Object(mut merged)) = serde_json::to_value(preset) else {
        return Err("the preset cannot be read".to_owned());
    };
    merged.extend(own.clone());
    serde_json::from_value(Json::Object(merged)).map_err(|error| error.to_string())
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn events() -> Option<String> {
    text(r#"{"events": {{ items }}}"#)
}

fn flexprice() -> Options {
    Options {
        path: "/v1/events/bulk".to_owned(),
        item: text(
            r#"{"event_name": {{ event }}, "event_id": {{ id }}, "external_customer_id": {{ customer }},
                "timestamp": {{ at|rfc3339 }}, "source": "turnhook", "properties": {{ fields }}}"#,
        ),
        body: events(),
        batch: 1000,
        // Copies collapse in storage by id and timestamp, however far apart they come.
        window: text("forever"),
        time_in_key: true,
        accepted: true,
        ..Options::default()
    }
}

/// The organisation is a part of the `url`. Personal data is forbidden there: nothing but amounts is sent.
fn m3ter() -> Options {
    Options {
        path: "/measurements".to_owned(),
        item: text(
            r#"{"uid": {{ id }}, "meter": {{ event }}, "account": {{ customer }}, "ts": {{ at|rfc3339 }},
                "measure": {{ amounts }}}"#,
        ),
        body: text(r#"{"measurements": {{ items }}}"#),
        batch: 1000,
        bytes: 512_000,
        window: text("35d"),
        customers: Unknown::Later,
        accepted: true,
        ..Options::default()
    }
}

fn amberflo() -> Options {
    Options {
        path: "/ingest/".to_owned(),
        item: text(
            r#"{"uniqueId": {{ id }}, "meterApiName": {{ event }}, "meterValue": {{ value }},
                "customerId": {{ customer }}, "meterTimeInMillis": {{ at|unix_ms }},
                "dimensions": {{ properties|texts }}}"#,
        ),
        batch: 100,
        meters: Grouping::Single,
        // No window is stated.
        window: text("24h"),
        time_in_key: true,
        accepted: true,
        ..Options::default()
    }
}

fn meteroid() -> Options {
    Options {
        path: "/api/v1/events/ingest".to_owned(),
        item: text(
            r#"{"event_id": {{ id }}, "code": {{ event }}, "customer_id": {{ customer }},
                "timestamp": {{ at|rfc3339 }}, "properties": {{ fields|texts }}}"#,
        ),
        body: text(r#"{"events": {{ items }}, "allow_backfilling": true, "allow_partial_failures": true}"#),
        batch: 100,
        window: text("forever"),
        future: text("1h"),
        failed_items: Some(FailedItems {
            path: "failures".to_owned(),
            id: text("event_id"),
            reason: text("reason"),
        }),
        ..Options::default()
    }
}

fn dodo() -> Options {
    Options {
        path: "/events/ingest".to_owned(),
        item: text(
            r#"{"event_id": {{ id }}, "event_name": {{ event }}, "customer_id": {{ customer }},
                "timestamp": {{ at|rfc3339 }}, "metadata": {{ fields }}}"#,
        ),
        body: events(),
        batch: 1000,
        window: text("forever"),
        oldest: text("1h"),
        future: text("5m"),
        all_or_nothing: true,
        ..Options::default()
    }
}

fn creem() -> Options {
    // Taken, and never billed; and an id that was taken once is not looked at again.
    let never = |warning| Rule::new(202, Some(warning));
    Options {
        path: "/v1/events/ingest".to_owned(),
        item: text(
            r#"{"event_id": {{ id }}, "name": {{ event }}, "customer_id": {{ customer }},
                "timestamp": {{ at|rfc3339 }}, "properties": {{ amounts }}, "metadata": {{ properties|texts }}}"#,
        ),
        body: events(),
        // A warning does not have to say which event it is about: so one at a time.
        batch: 1,
        window: text("forever"),
        rejected: vec![
            never("no_matching_meter"),
            never("meter_archived"),
            never("timestamp_outside_late_window"),
        ],
        ..Options::default()
    }
}

fn autumn() -> Options {
    Options {
        path: "/v1/track".to_owned(),
        headers: [("idempotency-key".to_owned(), "{{ id }}".to_owned())].into(),
        item: text(
            r#"{"customer_id": {{ customer }}, "feature_id": {{ event }}, "value": {{ value }},
                "timestamp": {{ at|unix_ms }}, "properties": {{ properties }}}"#,
        ),
        meters: Grouping::Single,
        window: text("24h"),
        future: text("0s"),
        duplicate: vec![Rule::new(409, None)],
        early: vec![Rule::new(400, Some("future"))],
        ..Options::default()
    }
}

fn airwallex() -> Options {
    Options {
        path: "/api/v1/usage_events/ingest".to_owned(),
        item: text(
            r#"{"merchant_event_id": {{ id }}, "event_name": {{ event }}, "billing_customer_id": {{ customer }},
                "happened_at": {{ at|rfc3339 }}, "properties": {{ fields }}}"#,
        ),
        window: text("35d"),
        oldest: text("35d"),
        future: text("5m"),
        accepted: true,
        ..Options::default()
    }
}

/// The customer is a subscription's id, the `url` that of the site's ingest.
fn chargebee() -> Options {
    Options {
        path: "/api/v2/batch/usage_events".to_owned(),
        item: text(
            r#"{"deduplication_id": {{ id }}, "subscription_id": {{ customer }},
                "usage_timestamp": {{ at|unix_ms }}, "properties": {{ fields }}}"#,
        ),
        body: events(),
        batch: 100,
        // None is stated.
        window: text("24h"),
        failed_items: Some(FailedItems {
            path: "failed_events".to_owned(),
            id: text("deduplication_id"),
            reason: None,
        }),
        accepted: true,
        ..Options::default()
    }
}

/// The customer is a subscription (`code-…` or an id), the meter's name an add-on (`code-…`).
fn recurly() -> Options {
    Options {
        path: "/subscriptions/{{ customer }}/add_ons/{{ event }}/usage".to_owned(),
        headers: [(
            "accept".to_owned(),
            "application/vnd.recurly.v2021-02-25".to_owned(),
        )]
        .into(),
        item: text(
            r#"{"amount": {{ value }}, "merchant_tag": {{ id }}, "usage_timestamp": {{ at|rfc3339 }}}"#,
        ),
        meters: Grouping::Single,
        // No id that it would know again.
        window: text("never"),
        ..Options::default()
    }
}

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name)
}
