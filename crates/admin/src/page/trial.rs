//! An endpoint is tried from its view.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use turnhook_reducer::event::EventType;

use super::{
    table::Cell,
    view::{Block, Field, Form, View, text_lines},
};
use crate::{
    Admin, Trial,
    asked::{self, Asked, encoded},
    text,
    trial::{self, CASES, PING},
};

/// What asks for it.
pub(super) fn form(view: &View, endpoint: &str) -> [Block; 2] {
    let mut types = vec![(PING, "a ping")];
    types.extend(EventType::ALL.map(|one| (one.as_str(), one.as_str())));
    let nothing = Asked::default();
    let field = |label, name| Field::new(label, name, "text", &nothing);
    let form = Form {
        method: "post",
        action: view.link(&format!("/endpoints/{}/test", encoded(endpoint.as_bytes()))),
        hidden: Vec::new(),
        fields: vec![
            field("What is sent, a ping or a sample of", "type").of(&types),
            field("What is special about a sample", "case").of(&CASES),
            field("Why, for the record", "reason"),
        ],
        button: "Send a test".into(),
        danger: false,
    };
    [
        Block::Heading("Test it; nobody is billed for that"),
        Block::Form(form),
    ]
}

pub(super) async fn tried(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    view: View,
    asked::Form(asked): asked::Form,
) -> Response {
    match trial::run(&admin, &view.who, &name, &asked).await {
        Ok(trial) => view.show(Ok((
            format!("Test of endpoint {name}"),
            outcome(&view, &name, &trial),
        ))),
        Err(refused) => view.refuse(refused),
    }
}

/// What came of it, in words.
fn outcome(view: &View, name: &str, trial: &Trial) -> Vec<Block> {
    let shown = text::shown(name.as_bytes());
    let sentence = match (&trial.error, trial.sent.is_empty()) {
        (Some(error), _) => Block::Say(
            "bad",
            format!("{shown} is not well: {}.", text::shown(error.as_bytes())),
        ),
        (None, true) => Block::Say(
            "",
            "Nothing was sent: the product has no call that changes nothing, so its credentials are not tried."
                .to_owned(),
        ),
        (None, false) => Block::Say("good", format!("{shown} is well: it took what was sent.")),
    };
    let mut words = vec![sentence];
    let means = format!(
        "{} Nobody is billed for this test, and it is sent once.",
        trial.means
    );
    words.push(Block::Say("", means.trim_start().to_owned()));
    if !trial.sent.is_empty() {
        let status = trial.status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let mut facts = vec![
            ("Sent", Cell::Name(text::shown(trial.sent.as_bytes()))),
            ("Answer", Cell::text(status)),
            (
                "After",
                Cell::Number(format!("{} ms", text::grouped(trial.latency_ms))),
            ),
        ];
        if !trial.answer.is_empty() {
            facts.push(("It says", Cell::Name(text::shown(&trial.answer))));
        }
        words.push(Block::Facts(facts));
    }
    if !trial.requests.is_empty() {
        let requests = text_lines(&trial.requests.join("\n\n"));
        words.push(Block::Text(
            "What the sample would be sent as; credentials are hidden",
            requests,
        ));
    }
    let back = view.link(&format!("/endpoints/{}", encoded(name.as_bytes())));
    words.push(Block::Links(vec![(back, "Back to the endpoint".to_owned())]));
    words
}
