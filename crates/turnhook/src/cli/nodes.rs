//! `turnhook nodes`.

use clap::{Args, Subcommand};
use serde_json::json;
use turnhook_dispatcher::body::rfc3339;
use turnhook_store::{LeaseName, NodeId, SourceId, View};

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    output::{self, Rows, print_json},
    store,
    units::duration,
    zone::ZoneArgs,
};

/// Look at the nodes that share a store in PostgreSQL
#[derive(Debug, Args)]
pub(super) struct Nodes {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
}

impl Nodes {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::List(command) => command.run().await,
        }
    }
}

/// List nodes: which live, what each leads, how many of the 64 lanes each delivers
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook nodes list

  A node whose beat has not come for as long as `[store] lease` is gone: others take what it had. It
  is forgotten an hour later; one that was stopped, at once. Each start is a node of its own. Times
  are UTC, or those of --tz.")]
struct List {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    zone: ZoneArgs,
    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let (_, store) = store::open(&self.config).await?;
        let Some(cluster) = store.cluster() else {
            return Err(CliError::failed(format!(
                "{}: a SQLite file, on which one turnhook runs alone; nodes share a store in PostgreSQL ([store] url)",
                store.describe()
            )));
        };
        let sources = store.ledger().sources().await?;
        let name_of = |id: SourceId| {
            let found = sources.iter().find(|(_, known)| **known == id);
            found.map_or_else(|| id.0.to_string(), |(name, _)| name.clone())
        };
        let view = cluster.view().await?;
        let mut table = Rows::new(&[
            ("NODE", false),
            ("STATE", false),
            ("LEADS", false),
            ("LANES", true),
            ("VERSION", false),
            ("STARTED (UTC)", false),
            ("EXPIRES IN", true),
            ("ID", false),
        ])
        .narrow(&["ID", "VERSION"], &["LEADS", "NODE"])
        .of_zone(&self.zone);
        for node in &view.nodes {
            let (leads, lanes) = held(&view, node.id);
            let leads: Vec<String> = leads.into_iter().map(&name_of).collect();
            let expires = u64::try_from(node.expires_in.as_millis()).unwrap_or(u64::MAX);
            match self.format {
                Format::Json => print_json(&json!({
                    "node": node.name,
                    "id": node.id.to_string(),
                    "version": node.version,
                    "started_at": rfc3339(node.started_at),
                    "live": node.live,
                    "expires_in_ms": expires,
                    "sources": node.sources.iter().map(|id| name_of(*id)).collect::<Vec<_>>(),
                    "leads": leads,
                    "lanes": lanes,
                }))?,
                Format::Text => table.push([
                    output::name(node.name.as_bytes()),
                    if node.live { "live" } else { "gone" }.to_owned(),
                    output::name(leads.join(", ").as_bytes()),
                    lanes.to_string(),
                    output::name(node.version.as_bytes()),
                    self.zone.show(node.started_at),
                    if node.live {
                        duration(expires)
                    } else {
                        String::new()
                    },
                    node.id.to_string(),
                ]),
            }
        }
        if self.format == Format::Text {
            table.print("no nodes: no turnhook runs on this store")?;
        }
        // What stands still is said to whoever looks, and is no part of the list.
        let (sources, lanes) = free(&view);
        if !view.nodes.is_empty() && !sources.is_empty() {
            let names: Vec<String> = sources.into_iter().map(&name_of).collect();
            eprintln!("led by no node: {}", output::name(names.join(", ").as_bytes()));
        }
        if !view.nodes.is_empty() && lanes > 0 {
            eprintln!("delivered by no node: {lanes} lanes");
        }
        Ok(())
    }
}

/// The sources and the number of lanes that a node holds.
fn held(view: &View, node: NodeId) -> (Vec<SourceId>, usize) {
    let held = view.leases.iter().filter(|lease| lease.holder == Some(node));
    split(held.filter(|lease| !lease.expired).map(|lease| lease.name))
}

/// Those that nobody holds; sources only where a node has them configured.
fn free(view: &View) -> (Vec<SourceId>, usize) {
    let (mut sources, lanes) = split(
        view.leases
            .iter()
            .filter(|lease| lease.expired)
            .map(|lease| lease.name),
    );
    sources.retain(|source| view.nodes.iter().any(|node| node.sources.contains(source)));
    (sources, lanes)
}

fn split(leases: impl Iterator<Item = LeaseName>) -> (Vec<SourceId>, usize) {
    let (mut sources, mut lanes) = (Vec::new(), 0);
    for lease in leases {
        match lease {
            LeaseName::Source(id) => sources.push(id),
            LeaseName::Lane(_) => lanes += 1,
        }
    }
    (sources, lanes)
}
