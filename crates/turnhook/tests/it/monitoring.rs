//! Alerts, dashboard and the page about operating: held to the metrics of a turnhook that runs, and to each other.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde::Deserialize;
use turnhook_reducer::source::GapReason;

use crate::harness::{
    free_port,
    program::{Program, endpoint},
};

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Labels {
    severity: String,
}

#[derive(Deserialize)]
struct Annotations {
    summary: String,
    description: String,
    runbook_url: String,
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap()
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_saphyr::from_str(&read("prometheus/turnhook.rules.yaml")).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

fn dashboard() -> serde_json::Value {
    serde_json::from_str(&read("grafana/turnhook.json")).unwrap()
}

fn panels() -> Vec<serde_json::Value> {
    let dashboard = dashboard();
    let all = dashboard["panels"].as_array().unwrap().iter();
    all.filter(|panel| panel["type"] != "row").cloned().collect()
}

/// The expressions of all panels and annotations.
fn panel_expressions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = panels().into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().clone();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        targets
    });
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().clone();
    targets
        .chain(annotations)
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

/// The metrics that an expression is about.
fn metrics_in(expression: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expression
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("turnhook_") || word.starts_with("process_"))
        .collect()
}

/// What a turnhook with a source of each type, a control and an endpoint shows, before anything has happened.
fn scraped() -> String {
    let redis = format!(
        "[[source]]\nname = \"us-1\"\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\n",
        free_port()
    );
    let nobody = endpoint("billing", &format!("http://127.0.0.1:{}/", free_port()), "");
    let control = format!(
        "[[control]]\nsource = \"eu-1\"\naddress = \"127.0.0.1:{}\"\npassword = \"pw\"\n",
        free_port()
    );
    let mut program = Program::new(&(redis + &control + &nobody));
    program.start();
    let metrics = program.get("/metrics").1;
    program.stop();
    metrics
}

/// A metric that is renamed, or appears only once something happens, would leave an alert or a panel blind for ever.
#[test]
fn rules_and_panels_are_about_metrics_that_there_are() {
    let metrics = scraped();
    let there: BTreeSet<&str> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let expressions: Vec<String> = rules().into_iter().map(|rule| rule.expr).collect();
    for expression in expressions.iter().chain(&panel_expressions()) {
        let wanted = metrics_in(expression);
        for metric in &wanted {
            assert!(there.contains(metric), "there is no {metric}: {expression}");
        }
        assert!(
            !wanted.is_empty() || expression.starts_with("up{") || expression.starts_with("absent(up{"),
            "{expression}"
        );
    }
}

/// Something to type, rather than a key or a metric.
fn is_command(quoted: &str) -> bool {
    let program = quoted.split_whitespace().next().unwrap_or_default();
    ["turnhook", "systemctl", "journalctl", "timedatectl"].contains(&program)
}

#[test]
fn each_alert_is_explained_and_tried() {
    let page = read("OPERATING.md");
    let tests = read("prometheus/turnhook.rules.test.yaml");
    let headings: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_owned)
        .collect();
    let mut explained = BTreeSet::new();
    for rule in rules() {
        let name = &rule.alert;
        assert!(name.starts_with("Turnhook"), "{name}");
        assert!(
            ["critical", "warning"].contains(&rule.labels.severity.as_str()),
            "{name}"
        );
        assert!(
            rule.annotations.summary.len() > 10 && rule.annotations.description.ends_with('.'),
            "{name}"
        );
        let (document, anchor) = rule.annotations.runbook_url.rsplit_once('#').unwrap();
        assert!(document.ends_with("/OPERATING.md"), "{name}: {document}");
        let heading = headings.iter().find(|heading| heading.to_lowercase() == anchor);
        explained.insert(
            heading
                .unwrap_or_else(|| panic!("{name}: no heading for #{anchor}"))
                .clone(),
        );
        // Fires once at least, and is named where all is well.
        let fires = format!("alertname=\"{name}\",alertstate=\"firing\"");
        assert!(tests.contains(&fires), "{name} is not tried");
        assert!(
            tests.contains(&format!("alertname: {name},")),
            "{name} is not tried"
        );
    }
    assert_eq!(explained, headings, "a heading is of no alert");
    for heading in headings {
        let rest = page.split_once(&format!("### {heading}\n")).unwrap().1;
        let paragraph = rest.split("\n#").next().unwrap();
        for part in ["*The bill:*", "*Do:*", "*By itself:*"] {
            assert!(paragraph.contains(part), "{heading} has no {part}");
        }
        let (_, after) = paragraph.split_once("*Do:*").unwrap();
        let what = after.split("*By itself:*").next().unwrap();
        assert!(
            what.split('`').skip(1).step_by(2).any(is_command),
            "{heading}: no command to begin with:{what}"
        );
    }
    for reason in GapReason::ALL {
        let row = format!("\n| `{}` |", reason.as_str());
        assert!(
            page.contains(&row),
            "no word about gaps of reason {}",
            reason.as_str()
        );
    }
}

#[test]
fn the_dashboard_keeps_to_the_rules_of_dashboards() {
    let dashboard = dashboard();
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
    assert_eq!(dashboard["editable"], false);
    let mut ids = BTreeSet::new();
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            !title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()),
            "{title}"
        );
        assert!(panel["description"].as_str().unwrap().ends_with('.'), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
    }
    for expression in panel_expressions() {
        assert!(
            expression.contains("job=\"$job\",instance=~\"$instance\""),
            "{expression}"
        );
    }
}

/// Debian's promtool: on the PATH, or where tests/run.sh unpacks it.
fn promtool() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_turnhook")).parent()?.parent()?;
    let path = std::env::var_os("PATH")?;
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push(target.join("prometheus/usr/bin"));
    places
        .into_iter()
        .map(|place| place.join("promtool"))
        .find(|program| program.is_file())
}

#[track_caller]
fn succeeds(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    assert!(
        status.success(),
        "{command:?}: {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
}

/// By Prometheus's own tool: metrics as it wants them, rules that it reads, alerts that fire and clear, and panels whose
/// expressions it understands.
#[test]
fn promtool_takes_all_of_it() {
    let Some(promtool) = promtool() else {
        // tests/run.sh fetches it, and says so if it cannot be had.
        println!("LEFT OUT: no promtool here, so nothing was held to it");
        return;
    };
    let promtool = || Command::new(&promtool);
    succeeds(promtool().args(["check", "metrics"]), &scraped());
    let rules = deploy("prometheus/turnhook.rules.yaml");
    succeeds(promtool().args(["check", "rules"]).arg(&rules), "");
    let tests = deploy("prometheus/turnhook.rules.test.yaml");
    succeeds(promtool().args(["test", "rules"]).arg(&tests), "");

    let directory = tempfile::tempdir().unwrap();
    let recorded: Vec<serde_json::Value> = panel_expressions()
        .into_iter()
        .enumerate()
        .map(|(i, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            serde_json::json!({ "record": format!("panel:{i}"), "expr": expression })
        })
        .collect();
    // JSON is YAML.
    let panels = serde_json::json!({ "groups": [{ "name": "panels", "rules": recorded }] });
    let file = directory.path().join("panels.yaml");
    fs::write(&file, panels.to_string()).unwrap();
    succeeds(promtool().args(["check", "rules"]).arg(&file), "");
}
