//! `turnhook reconcile`: coturn's own log against the ledger.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use turnhook_dispatcher::{body::rfc3339, clock::wall_clock};
use turnhook_reducer::{
    time::Timestamp,
    usage::{Legs, Usage},
};

use super::{
    args::{ConfigArgs, Format},
    error::CliError,
    output::{self, Rows, print, print_json},
    sessions::row::{base64, usage_json},
    store,
    units::bytes,
    zone::{When, ZoneArgs},
};
use crate::reconcile::{self, Compared, Finding, Verdict, heal::Rule, log::Log};

mod healing;

use healing::Healing;

/// Compare coturn's own log with what was billed, allocation by allocation, to the byte
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  $ turnhook reconcile --source eu-1 --log /var/log/turnserver.log.2.gz /var/log/turnserver.log.1 /var/log/turnserver.log
  $ turnhook reconcile --source eu-1 --log turnserver.log --from 2026-11-22 --to 2026-11-23 --format json
  $ turnhook reconcile --source eu-1 --log turnserver.log.2 turnserver.log.1 turnserver.log --heal

  The log is one coturn's, made with `verbose`, `simple-log` and a `log-file`; before 4.17 also with
  `new-log-timestamp`, without which lines have no dates. Rotated files are put in order by their dates; where they have none,
  name the oldest first. Without --heal nothing is changed. With it, what the log has more of is billed by a running turnhook in a
  session that `continues` the one that was billed too low, where the narrow rule in OPERATING.md allows it: above all, the log is
  coturn 4.17's, since in older ones whoever reaches coturn can write lines, and the session ended a day ago. The status is 0 if
  nothing differs or all that does is set right, and else 1. OPERATING.md says what each verdict means. Days and times are UTC, or
  those of --tz.")]
pub(super) struct Reconcile {
    #[command(flatten)]
    config: ConfigArgs,
    /// The source that this coturn is heard by
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The files of one coturn's log, the oldest first; rotated ones and .gz, too
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    log: Vec<PathBuf>,
    /// Only allocations that began at this time or later: 2026-11-22T06:00:00Z, 2026-11-22, or 2h ago
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    from: Option<When>,
    /// Only those that began before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    to: Option<When>,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Have a running turnhook bill what was missed, where that is certain
    #[arg(long)]
    heal: bool,
    /// Believe a log of a coturn before 4.17: no stranger reaches this coturn
    #[arg(long)]
    trust_log: bool,
    /// List those that are equal, too
    #[arg(long)]
    all: bool,
    /// How to print it; json: one object a line, the last one the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Reconcile {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (config, store) = store::open(&self.config).await?;
        let Some(source) = store.ledger().sources().await?.get(&self.source).copied() else {
            return Err(CliError::Usage(format!(
                "the store knows no source {:?}: `turnhook usage --by source` names those that it knows",
                self.source
            )));
        };
        let (log, files) = reconcile::read(&self.log).map_err(|(path, error)| {
            CliError::failed(format!("cannot read the log {}: {error}", path.display()))
        })?;
        let readable = log.format.is_some();
        if !readable || log.counts.records == 0 {
            return Err(CliError::failed(unreadable(readable)));
        }
        if log.dates.is_none() && (self.from.is_some() || self.to.is_some()) {
            return Err(CliError::Usage(
                "--from and --to need dates, and the lines of this log have none: before 4.17 coturn writes them with \
                 new-log-timestamp"
                    .to_owned(),
            ));
        }
        // A session that began before may count what began later.
        let since = log.dates.map(|(from, _)| from);
        let ledger = reconcile::ledger(store.ledger(), &self.source, since).await?;
        let (trimmed, unlisted) = (ledger.trimmed, ledger.unlisted);
        let mut summary = Summary::of(&log, trimmed, unlisted);
        summary.files = files.iter().map(|file| file.path.display().to_string()).collect();
        let rule = Rule {
            now: wall_clock(),
            retention: config.store.retention,
            trust_log: self.trust_log,
        };
        let at = |when: Option<When>| when.map(|when| when.of(&self.zone));
        let period = (at(self.from), at(self.to));
        let compared = reconcile::compare(log, ledger, config.session.residue.0, period, &rule);
        let mut healing = Healing::of(&config, &store, &self.source, &compared)?;
        if self.heal {
            healing.ask(&store, source, &self.source).await?;
        }
        match self.format {
            Format::Json => self.json(&compared, &summary, &healing)?,
            Format::Text => self.text(&compared, &summary, &healing)?,
        }
        let wrong = compared
            .findings
            .iter()
            .filter(|finding| finding.verdict.is_wrong());
        if wrong.count() > healing.asked {
            return Err(CliError::Reported);
        }
        Ok(())
    }

    fn wanted(&self, finding: &Finding) -> bool {
        self.all || finding.verdict != Verdict::Equal
    }

    fn json(&self, compared: &Compared, summary: &Summary, healing: &Healing) -> Result<(), CliError> {
        let legs = |legs: &Legs| {
            let mut object = usage_json(
                &Usage {
                    legs: *legs,
                    ..Usage::default()
                },
                true,
            );
            if let Some(object) = object.as_object_mut() {
                object.remove("billable_bytes");
            }
            object
        };
        for f in compared.findings.iter().filter(|f| self.wanted(f)) {
            print_json(&json!({
                "verdict": f.verdict.as_str(),
                "allocation": f.id.to_string(),
                "realm": String::from_utf8_lossy(&f.realm),
                "realm_base64": base64(&f.realm),
                "username": String::from_utf8_lossy(&f.username),
                "username_base64": base64(&f.username),
                "since": f.since.map(rfc3339),
                "log": f.log.as_ref().map(legs),
                "told": f.billed.as_ref().map(legs),
                "sessions": f.sessions,
                "accuracy": (!f.sessions.is_empty()).then_some(if f.lower_bound { "lower_bound" } else { "exact" }),
                "lives": f.lives,
                "heal": healing.json(f),
            }))?;
        }
        let verdicts: serde_json::Map<String, Value> = VERDICTS
            .iter()
            .map(|verdict| (verdict.as_str().to_owned(), compared.count(*verdict).into()))
            .collect();
        print_json(&json!({
            "summary": {
                "source": self.source,
                "files": summary.files,
                "from": summary.dates.map(|(from, _)| rfc3339(from)),
                "to": summary.dates.map(|(_, to)| rfc3339(to)),
                "verdicts": verdicts,
                "log": legs(&compared.log),
                "told": legs(&compared.billed),
                "of_other_servers": compared.of_other_servers,
                "sessions_trimmed": summary.trimmed,
                "allocations_unlisted": summary.unlisted,
                "heal": healing.summary(),
                "read": summary.counts,
            }
        }))
    }

    fn text(&self, compared: &Compared, summary: &Summary, healing: &Healing) -> Result<(), CliError> {
        let mut table = Rows::new(&[
            ("VERDICT", false),
            ("ALLOCATION", false),
            ("USERNAME", false),
            ("SINCE (UTC)", false),
            ("LEG", false),
            ("LOG RECEIVED", true),
            ("BILLED", true),
            ("LOG SENT", true),
            ("BILLED", true),
            ("SESSION", false),
        ])
        .narrow(&["SESSION", "SINCE (UTC)"], &["USERNAME"])
        .of_zone(&self.zone);
        for f in compared.findings.iter().filter(|f| self.wanted(f)) {
            let (log, billed) = (f.log.unwrap_or_default(), f.billed.unwrap_or_default());
            for (leg, log, billed) in [
                ("client", log.client, billed.client),
                ("peer", log.peer, billed.peer),
            ] {
                let cell = |known: bool, n: u64| if known { n.to_string() } else { "-".to_owned() };
                table.push([
                    f.verdict.as_str().replace('_', " "),
                    f.id.to_string(),
                    output::name(&f.username),
                    f.since.map_or_else(|| "-".to_owned(), |at| self.zone.show(at)),
                    leg.to_owned(),
                    cell(f.log.is_some(), log.received_bytes),
                    cell(f.billed.is_some(), billed.received_bytes),
                    cell(f.log.is_some(), log.sent_bytes),
                    cell(f.billed.is_some(), billed.sent_bytes),
                    f.sessions.first().cloned().unwrap_or_else(|| "-".to_owned()),
                ]);
            }
        }
        let listed = table.text("", output::columns());
        let mut text = if listed.is_empty() { listed } else { listed + "\n" };
        let counts: Vec<String> = VERDICTS
            .iter()
            .map(|verdict| (compared.count(*verdict), verdict.as_str().replace('_', " ")))
            .filter(|(count, verdict)| *count > 0 || verdict == "equal")
            .map(|(count, verdict)| format!("{count} {verdict}"))
            .collect();
        text += &format!("{} allocations: {}\n", compared.findings.len(), counts.join(", "));
        let carried = |legs: &Legs| {
            let all = [
                legs.client.received_bytes,
                legs.client.sent_bytes,
                legs.peer.received_bytes,
                legs.peer.sent_bytes,
            ];
            bytes(all.into_iter().fold(0, u64::saturating_add))
        };
        text += &format!(
            "{} in the log, {} billed (all that was received and sent on both legs)\n",
            carried(&compared.log),
            carried(&compared.billed)
        );
        text += &healing.text(compared, self.heal);
        for note in summary.notes(compared.of_other_servers) {
            text += &format!("note: {note}\n");
        }
        print(&text)
    }
}

const VERDICTS: [Verdict; 8] = [
    Verdict::Equal,
    Verdict::Open,
    Verdict::Leftover,
    Verdict::Cut,
    Verdict::Unlisted,
    Verdict::StreamLess,
    Verdict::LogLess,
    Verdict::Differs,
];

/// What is said beside the findings.
struct Summary {
    files: Vec<String>,
    dates: Option<(Timestamp, Timestamp)>,
    counts: reconcile::log::Counts,
    trimmed: u64,
    unlisted: u64,
}

impl Summary {
    fn of(log: &Log, trimmed: u64, unlisted: u64) -> Summary {
        Summary {
            files: Vec::new(),
            dates: log.dates,
            counts: log.counts.clone(),
            trimmed,
            unlisted,
        }
    }

    fn notes(&self, of_other_servers: u64) -> Vec<String> {
        let c = &self.counts;
        let all = [
            (
                c.suspicious,
                "records look forged: they stand inside another line, between the lines of a name, or name another user than the allocation's. They are not counted",
            ),
            (
                c.without_beginning,
                "allocations have no beginning in the log: an older file is missing, or it was cut",
            ),
            (
                c.overlapping_files,
                "files begin before the one before them ends: what stands in both is counted twice. Name each part of the log once",
            ),
            (
                c.cut_lines,
                "files end in the midst of a line, which is not counted",
            ),
            (
                c.too_long_lines,
                "lines are longer than any of coturn's, and are not counted",
            ),
            (
                self.trimmed,
                "sessions are too old to be compared: retention has removed what was delivered",
            ),
            (
                self.unlisted,
                "allocations were counted in sessions that had more than are listed: their bytes are billed",
            ),
            (
                of_other_servers,
                "allocations in the ledger are another coturn's, and are not compared",
            ),
        ];
        let mut notes: Vec<String> = all
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if self.dates.is_none() {
            notes.push(
                "the lines have no dates, so what the ledger has and the log has not is not looked for (new-log-timestamp)".to_owned(),
            );
        }
        notes
    }
}

fn unreadable(readable: bool) -> &'static str {
    if readable {
        "the log has no record of an allocation: coturn writes them with `verbose`, and from 4.15 on without a log-min-level"
    } else {
        "no line begins as coturn's do: give files that coturn writes itself (`log-file`, `simple-log`), with the usual \
         date if `new-log-timestamp-format` is set, and not those of journald or syslog"
    }
}
