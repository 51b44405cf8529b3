//! What a view is made of: a few kinds of blocks, which one template writes.

use askama::Template;
use axum::{
    Extension,
    extract::FromRequestParts,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    plot::Plot,
    table::{Cell, Table},
};
use crate::{Admin, Refused, Who, asked::Asked, text, zone::Zone};

/// A form's field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Field {
    pub(crate) label: &'static str,
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) value: String,
    pub(crate) choices: Vec<(&'static str, &'static str)>,
    /// What may be written, shown while nothing is.
    pub(crate) hint: &'static str,
}

impl Field {
    pub(crate) fn new(label: &'static str, name: &'static str, kind: &'static str, asked: &Asked) -> Field {
        Field {
            label,
            name,
            kind,
            value: asked.text(name).unwrap_or_default(),
            choices: Vec::new(),
            hint: "",
        }
    }

    pub(crate) fn hint(mut self, hint: &'static str) -> Field {
        self.hint = hint;
        self
    }

    pub(crate) fn of(mut self, choices: &[(&'static str, &'static str)]) -> Field {
        self.choices = choices.to_vec();
        self
    }
}

/// A form: one that asks, or one that does something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form {
    pub(crate) method: &'static str,
    pub(crate) action: String,
    pub(crate) hidden: Vec<(String, String)>,
    pub(crate) fields: Vec<Field>,
    pub(crate) button: String,
    pub(crate) danger: bool,
}

/// A part of a view.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// A sentence, and how good it is.
    Say(&'static str, String),
    Heading(&'static str),
    Facts(Vec<(&'static str, Cell)>),
    Table(Table),
    Plot(Plot),
    Text(&'static str, String),
    Links(Vec<(String, String)>),
    Form(Form),
}

/// What every view needs.
pub(crate) struct View {
    pub(crate) who: Who,
    pub(crate) asked: Asked,
    pub(crate) zone: Zone,
    pub(crate) here: String,
    pub(crate) version: String,
}

impl FromRequestParts<Admin> for View {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        admin: &Admin,
    ) -> Result<View, Response> {
        let Ok(asked) = Asked::from_request_parts(parts, admin).await;
        let Ok(Extension(who)) = Extension::<Who>::from_request_parts(parts, admin).await else {
            return Err(StatusCode::UNAUTHORIZED.into_response());
        };
        let zone = asked.zone();
        let mut view = View {
            who,
            asked,
            zone: Zone::utc(),
            here: parts.uri.path().to_owned(),
            version: admin.engine.status().version,
        };
        match zone {
            Ok(zone) => {
                view.zone = zone;
                Ok(view)
            }
            Err(refused) => Err(view.refuse(refused)),
        }
    }
}

const NAV: [(&str, &str); 9] = [
    ("/", "Overview"),
    ("/sessions", "Sessions"),
    ("/deliveries", "Deliveries"),
    ("/usage", "Usage"),
    ("/blocks", "Blocks"),
    ("/endpoints", "Endpoints"),
    ("/sources", "Sources"),
    ("/nodes", "Nodes"),
    ("/audit", "Record"),
];

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    title: &'a str,
    heading: &'a str,
    nav: &'a [(&'static str, &'static str)],
    here: &'a str,
    query: String,
    tz: String,
    tz_query: String,
    tz_name: &'a str,
    blocks: &'a [Block],
    version: &'a str,
    who: &'a str,
    role: &'static str,
}

pub(crate) type Shown = Result<(String, Vec<Block>), Refused>;

impl View {
    /// The page, or why there is none.
    pub(crate) fn show(&self, shown: Shown) -> Response {
        match shown {
            Ok((heading, blocks)) => self.render(StatusCode::OK, &heading, &blocks),
            Err(refused) => self.refuse(refused),
        }
    }

    pub(crate) fn refuse(&self, refused: Refused) -> Response {
        let blocks = [Block::Say("bad", refused.message)];
        self.render(refused.status, "This cannot be shown", &blocks)
    }

    fn render(&self, status: StatusCode, heading: &str, blocks: &[Block]) -> Response {
        let tz = if self.zone.is_utc() {
            String::new()
        } else {
            self.zone.name().to_owned()
        };
        let tz_query = if tz.is_empty() {
            String::new()
        } else {
            format!("?tz={}", crate::asked::encoded(tz.as_bytes()))
        };
        let page = Page {
            title: heading,
            heading,
            nav: &NAV,
            here: &self.here,
            query: self.asked.text("q").unwrap_or_default(),
            tz,
            tz_query,
            tz_name: self.zone.name(),
            blocks,
            version: &self.version,
            who: &self.who.name,
            role: self.who.role.as_str(),
        };
        match page.render() {
            Ok(html) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
            Err(error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the page cannot be written: {error}\n"),
            )
                .into_response(),
        }
    }

    /// With the zone that was asked for.
    pub(crate) fn link(&self, path: &str) -> String {
        if self.zone.is_utc() {
            return path.to_owned();
        }
        let join = if path.contains('?') { '&' } else { '?' };
        format!(
            "{path}{join}tz={}",
            crate::asked::encoded(self.zone.name().as_bytes())
        )
    }

    pub(crate) fn user_cell(&self, user: Option<&[u8]>) -> Cell {
        match user {
            Some(user) => Cell::Link(
                self.link(&format!("/users/{}", crate::asked::encoded(user))),
                text::shown(user),
            ),
            None => Cell::text("nobody known"),
        }
    }

    pub(crate) fn session_cell(&self, id: turnhook_reducer::event::SessionId) -> Cell {
        Cell::Link(self.link(&format!("/sessions/{id}")), id.to_string())
    }

    pub(crate) fn event_cell(&self, id: turnhook_reducer::event::EventId) -> Cell {
        Cell::Link(self.link(&format!("/events/{id}")), id.to_string())
    }

    /// A form that asks for another part of the same.
    pub(crate) fn filter(&self, mut fields: Vec<Field>, button: &str) -> Block {
        fields.push(Field::new("Time zone", "tz", "text", &self.asked).hint("UTC"));
        Block::Form(Form {
            method: "get",
            action: self.here.clone(),
            fields,
            button: button.to_owned(),
            ..Form::default()
        })
    }

    /// The same question to the API, as CSV.
    pub(crate) fn csv(&self, path: &str) -> Block {
        let query = self.asked.with(&[("format", b"csv")]);
        Block::Links(vec![
            (format!("/api/v1{path}{query}"), "CSV".to_owned()),
            (
                format!("/api/v1{path}{}", self.asked.with(&[])),
                "JSON".to_owned(),
            ),
        ])
    }
}

/// Elsewhere, with GET.
pub(crate) fn see(path: &str) -> Response {
    let location: HeaderName = header::LOCATION;
    (StatusCode::SEE_OTHER, [(location, path.to_owned())]).into_response()
}

/// Lines are kept; within them, what would be obeyed is written out.
pub(super) fn text_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| text::shown(line.as_bytes())).collect();
    lines.join("\n")
}
