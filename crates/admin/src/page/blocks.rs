//! Who is blocked; blocking and unblocking a user, and ending a session, each asked again before it is done.

use axum::{
    Router,
    extract::{Path, State},
    http::Uri,
    response::Response,
    routing::{get, post},
};
use turnhook_reducer::time::Timestamp;
use turnhook_store::{BlockChange, BlockRow, SessionFilter};

use super::{
    table::{Cell, Table},
    view::{Block, Field, Form, Shown, View, see},
};
use crate::{
    Admin, Refused, Role,
    actions::{self, now},
    asked::{self, encoded, part, session_id},
    text,
};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/blocks", get(blocks))
        .route("/confirm/block", get(confirm_block))
        .route("/confirm/unblock", get(confirm_unblock))
        .route("/confirm/end", get(confirm_end))
        .route("/users/{user}/block", post(block))
        .route("/users/{user}/unblock", post(unblock))
        .route("/sessions/{id}/end", post(end))
}

/// A user, a realm (`None`: every one), and until when (`None`: until he is unblocked).
type Parts<'a> = (&'a [u8], Option<&'a [u8]>, Option<Timestamp>);

/// What a row says of a block.
fn parts(row: &BlockRow) -> Option<Parts<'_>> {
    match &row.change {
        BlockChange::Block { realm, user, until } => Some((user, realm.as_deref(), *until)),
        _ => None,
    }
}

fn realm_in_words(realm: Option<&[u8]>) -> String {
    realm.map_or_else(|| "every realm".to_owned(), text::shown)
}

/// As far as a page goes; the next begins after so many.
async fn listed(admin: &Admin, view: &View) -> Shown {
    let (limit, asked) = (view.asked.limit()?, &view.asked);
    let skipped = usize::try_from(asked.number("after")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let held = match asked.bytes("user") {
        Some(user) => admin.changes.blocks_of(user, now()).await?,
        None => admin.changes.blocks(now()).await?,
    };
    let shown = held.iter().skip(skipped).take(limit);
    let left = held.len().saturating_sub(skipped.saturating_add(limit));
    let next = (left > 0).then(|| {
        let after = (skipped + limit).to_string();
        format!("/blocks{}", asked.with(&[("after", after.as_bytes())]))
    });
    let is_operator = view.who.role == Role::Operator;
    let rows = shown.filter_map(|row| {
        let (user, realm, until) = parts(row)?;
        let mut cells = vec![
            view.user_cell(Some(user)),
            Cell::Name(realm_in_words(realm)),
            Cell::time(row.at, &view.zone),
            until.map_or_else(
                || Cell::text("until unblocked"),
                |until| Cell::time(until, &view.zone),
            ),
            Cell::Name(text::shown(row.reason.as_bytes())),
            Cell::Name(text::shown(row.who.as_bytes())),
        ];
        if is_operator {
            cells.push(Cell::Link(
                view.link(&to_unblock(user, realm)),
                "Unblock".to_owned(),
            ));
        }
        Some(cells)
    });
    let mut columns = vec![
        ("User", false),
        ("Realm", false),
        ("Since", false),
        ("Until", false),
        ("Why", false),
        ("By whom", false),
    ];
    if is_operator {
        columns.push(("What to do", false));
    }
    let mut blocks = vec![
        view.filter(vec![Field::new("User", "user", "text", asked)], "Show"),
        Block::Table(Table {
            caption: "Blocked now".into(),
            columns,
            rows: rows.collect(),
            none: "Nobody is.",
            next,
        }),
        to_api(asked.bytes("user")),
    ];
    if is_operator {
        blocks.push(Block::Heading("Block a user"));
        blocks.push(Block::Form(Form {
            method: "get",
            action: "/confirm/block".to_owned(),
            hidden: view.asked.only(&["tz"]),
            fields: vec![Field::new(
                "User, as webhooks name him",
                "user",
                "text",
                &asked::Asked::default(),
            )],
            button: "Go on".to_owned(),
            danger: false,
        }));
    }
    Ok(("Who is blocked".to_owned(), blocks))
}

/// The same for programs: of all, or of the user who is looked for.
fn to_api(user: Option<&[u8]>) -> Block {
    let of = user.map_or_else(String::new, |user| format!("/{}", encoded(user)));
    let path = format!("/api/v1/blocks{of}");
    Block::Links(vec![
        (format!("{path}?format=csv"), "CSV".to_owned()),
        (path, "JSON".to_owned()),
    ])
}

fn to_unblock(user: &[u8], realm: Option<&[u8]>) -> String {
    let of = realm.map_or_else(String::new, |realm| format!("&realm={}", encoded(realm)));
    format!("/confirm/unblock?user={}{of}", encoded(user))
}

async fn blocks(State(admin): State<Admin>, view: View) -> Response {
    let shown = listed(&admin, &view).await;
    view.show(shown)
}

/// For the view of a user: whether he is blocked, and what can be done about it.
pub(super) async fn of_user(admin: &Admin, view: &View, user: &[u8]) -> Result<Vec<Block>, Refused> {
    let (mut said, mut links) = (Vec::new(), Vec::new());
    for row in admin.changes.blocks_of(user, now()).await? {
        let Some((user, realm, until)) = parts(&row) else {
            continue;
        };
        let until = until.map_or_else(
            || "until he is unblocked".to_owned(),
            |until| format!("until {}", view.zone.show(until)),
        );
        let place = realm_in_words(realm);
        said.push(Block::Say(
            "bad",
            format!(
                "Blocked in {place} {until}, since {}, by {}: {}.",
                view.zone.show(row.at),
                text::shown(row.who.as_bytes()),
                text::shown(row.reason.as_bytes())
            ),
        ));
        links.push((view.link(&to_unblock(user, realm)), format!("Unblock in {place}")));
    }
    if said.is_empty() {
        let path = format!("/confirm/block?user={}", encoded(user));
        links.push((view.link(&path), "Block this user".to_owned()));
    }
    if view.who.role == Role::Operator {
        said.push(Block::Links(links));
    }
    Ok(said)
}

fn asked_user(view: &View) -> Result<Vec<u8>, Refused> {
    let user = view.asked.bytes("user").map(<[u8]>::to_vec);
    user.ok_or_else(|| Refused::wrong("`user` says whom: the name by which webhooks call him"))
}

async fn confirm_block(State(admin): State<Admin>, view: View) -> Response {
    let shown = async {
        let user = asked_user(&view)?;
        let filter = SessionFilter {
            user: Some(user.clone()),
            open: Some(true),
            ..SessionFilter::default()
        };
        let open = admin.ledger.sessions(filter, None, MOST_OPEN).await?;
        let is_controlled = admin
            .engine
            .status()
            .sources
            .iter()
            .any(|source| source.controlled);
        let ends = match (open.len(), is_controlled) {
            (0, _) => "He has no open session.".to_owned(),
            (n, true) => {
                format!("His open sessions ({n}) are ended, where a [[control]] reaches their coturn.")
            }
            (n, false) => format!("His open sessions ({n}) go on: there is no [[control]] to end them by."),
        };
        let words = format!(
            "{} is refused new allocations where a [[gate]] answers coturn, or where whoever makes the credentials obeys. {ends}",
            text::shown(&user)
        );
        let field = |label, name| Field::new(label, name, "text", &view.asked);
        let form = Form {
            method: "post",
            action: view.link(&format!("/users/{}/block", encoded(&user))),
            hidden: Vec::new(),
            fields: vec![
                field("Why, for the record and for webhooks", "reason"),
                field("For how long", "for").hint("30m, 12h; until unblocked"),
                field("In which realm alone", "realm").hint("every one"),
            ],
            button: "Block".to_owned(),
            danger: true,
        };
        let back = view.link(&format!("/users/{}", encoded(&user)));
        Ok((
            "Really block?".to_owned(),
            vec![
                Block::Say("warn", words),
                Block::Form(form),
                Block::Links(vec![(back, "No, back".to_owned())]),
            ],
        ))
    };
    let shown = shown.await;
    view.show(shown)
}

const MOST_OPEN: usize = 1000;

async fn confirm_unblock(State(_): State<Admin>, view: View) -> Response {
    let shown = asked_user(&view).map(|user| {
        let realm = view.asked.bytes("realm");
        let words = format!(
            "{} may make allocations again in {}.",
            text::shown(&user),
            realm_in_words(realm)
        );
        let of = realm.map_or_else(String::new, |realm| format!("?realm={}", encoded(realm)));
        let form = Form {
            method: "post",
            action: view.link(&format!("/users/{}/unblock{of}", encoded(&user))),
            hidden: Vec::new(),
            fields: vec![Field::new(
                "Why, for the record",
                "reason",
                "text",
                &asked::Asked::default(),
            )],
            button: "Unblock".to_owned(),
            danger: false,
        };
        let blocks = vec![
            Block::Say("warn", words),
            Block::Form(form),
            Block::Links(vec![(view.link("/blocks"), "No, back".to_owned())]),
        ];
        ("Really unblock?".to_owned(), blocks)
    });
    view.show(shown)
}

async fn confirm_end(State(_): State<Admin>, view: View) -> Response {
    let shown = view.asked.session("session").and_then(|id| {
        let id = id.ok_or_else(|| Refused::wrong("`session` says which"))?;
        let words = format!("{id} is ended now. Its user may begin another at once, unless he is blocked.");
        let form = Form {
            method: "post",
            action: view.link(&format!("/sessions/{id}/end")),
            hidden: Vec::new(),
            fields: vec![Field::new(
                "Why, for the record and for webhooks",
                "reason",
                "text",
                &view.asked,
            )],
            button: "End this session".to_owned(),
            danger: true,
        };
        let back = view.link(&format!("/sessions/{id}"));
        Ok((
            "Really end?".to_owned(),
            vec![
                Block::Say("warn", words),
                Block::Form(form),
                Block::Links(vec![(back, "No, back".to_owned())]),
            ],
        ))
    });
    view.show(shown)
}

async fn block(
    State(admin): State<Admin>,
    uri: Uri,
    view: View,
    asked::Form(asked): asked::Form,
) -> Response {
    // `/users/{user}/block`
    let user = part(&uri, 1);
    match actions::block(&admin.changes, &view.who, &user, &asked).await {
        Ok(()) => see(&view.link(&format!("/users/{}", encoded(&user)))),
        Err(refused) => view.refuse(refused),
    }
}

async fn unblock(
    State(admin): State<Admin>,
    uri: Uri,
    view: View,
    asked::Form(asked): asked::Form,
) -> Response {
    let user = part(&uri, 1);
    let realm = view.asked.bytes("realm");
    match actions::unblock(&admin.changes, &view.who, &user, realm, &asked).await {
        Ok(()) => see(&view.link(&format!("/users/{}", encoded(&user)))),
        Err(refused) => view.refuse(refused),
    }
}

async fn end(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    view: View,
    asked::Form(asked): asked::Form,
) -> Response {
    let done = async {
        let id = session_id(&id)?;
        actions::end((&admin.ledger, &admin.changes), &view.who, id, &asked).await?;
        Ok::<_, Refused>(id)
    };
    match done.await {
        Ok(id) => see(&view.link(&format!("/sessions/{id}"))),
        Err(refused) => view.refuse(refused),
    }
}
