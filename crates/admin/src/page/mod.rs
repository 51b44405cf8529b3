//! The page: each view is made of a few kinds of blocks, and one template writes them. Whatever it is given is escaped there.

mod bill;
mod blocks;
mod deliveries;
mod operate;
mod overview;
mod plot;
mod search;
mod session;
mod timeline;
mod trial;

use askama::Template;
use axum::{
    Extension, Router,
    extract::{FromRequestParts, State},
    http::{HeaderName, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use turnhook_reducer::time::Timestamp;

use self::plot::Plot;
use crate::{Admin, Refused, Who, answer::rfc3339, asked::Asked, text, zone::Zone};

const CSS: &str = include_str!("../../assets/page.css");
const JS: &str = include_str!("../../assets/page.js");
const ICON: &str = include_str!("../../assets/icon.svg");

/// All views.
pub(crate) fn routes(admin: &Admin) -> Router {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route("/page.css", asset("text/css; charset=utf-8", CSS))
        .route("/page.js", asset("text/javascript; charset=utf-8", JS))
        .route("/icon.svg", asset("image/svg+xml", ICON))
        .merge(overview::routes())
        .merge(search::routes())
        .merge(bill::routes())
        .merge(session::routes())
        .merge(blocks::routes())
        .merge(deliveries::routes())
        .merge(operate::routes())
        .with_state(admin.clone())
}

/// What a cell holds.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    /// From strangers.
    Name(String),
    Number(String),
    Link(String, String),
    State(&'static str, String),
    Time(String, String),
}

impl Cell {
    fn is_number(&self) -> bool {
        matches!(self, Cell::Number(_))
    }

    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    pub(crate) fn name(bytes: &[u8]) -> Cell {
        if bytes.is_empty() {
            Cell::Text("none".into())
        } else {
            Cell::Name(text::shown(bytes))
        }
    }

    pub(crate) fn number(n: u64) -> Cell {
        Cell::Number(text::grouped(n))
    }

    pub(crate) fn bytes(n: u64) -> Cell {
        Cell::Number(text::bytes(n))
    }

    pub(crate) fn time(at: Timestamp, zone: &Zone) -> Cell {
        Cell::Time(rfc3339(at), zone.show(at))
    }

    pub(crate) fn maybe_time(at: Option<Timestamp>, zone: &Zone) -> Cell {
        at.map_or_else(|| Cell::text("never"), |at| Cell::time(at, zone))
    }

    /// Of what may not have such a time at all.
    pub(crate) fn time_if_any(at: Option<Timestamp>, zone: &Zone) -> Cell {
        at.map_or_else(|| Cell::text("–"), |at| Cell::time(at, zone))
    }

    /// A state, with how good it is.
    pub(crate) fn state(word: &str) -> Cell {
        let class = match word {
            "delivered" | "active" | "connected" | "listening" | "exact" | "leader" | "live" => "good",
            "pending" | "failing" | "held" | "following" | "starting" | "lower_bound" | "discarded"
            | "gone" => "warn",
            "dead" | "deaf" | "paused" | "breaker_open" => "bad",
            _ => "",
        };
        Cell::State(class, word.replace('_', " "))
    }
}

/// Rows under headings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) caption: String,
    /// A heading, and whether it stands over numbers.
    pub(crate) columns: Vec<(&'static str, bool)>,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// What is said where there are none.
    pub(crate) none: &'static str,
    pub(crate) next: Option<String>,
}

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

/// A path that is none, or not with this method.
pub(crate) async fn missing(
    State(admin): State<Admin>,
    uri: Uri,
    request: axum::extract::Request,
) -> Response {
    if crate::answer::is_of_the_api(&uri) {
        return crate::answer::nothing_here(uri).await;
    }
    let (mut parts, _) = request.into_parts();
    match View::from_request_parts(&mut parts, &admin).await {
        Ok(view) => view.refuse(Refused::missing("there is no such page")),
        Err(response) => response,
    }
}
