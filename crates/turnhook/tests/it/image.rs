//! What the Dockerfile says, tried without Docker: on a turnhook that runs here.

use std::fs;

use crate::{
    deploy::{deploy, yaml},
    harness::{program::Program, turnhook::run},
};

/// The instructions of the last stage, with their continued lines.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(deploy("Dockerfile")).unwrap();
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    let all: Vec<(String, String)> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, rest)| {
            (
                name.to_owned(),
                rest.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect();
    let last = all.iter().rposition(|(name, _)| name == "FROM").unwrap();
    all[last..].to_vec()
}

fn only(name: &str) -> String {
    let found: Vec<_> = instructions().into_iter().filter(|(n, _)| n == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0].1.clone()
}

/// The words of an instruction in its form without a shell: there is none in the image.
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{list}: {error}"))
}

#[test]
fn the_image_runs_as_a_numbered_user_without_rights() {
    let user = only("USER");
    let pod = yaml("kubernetes.yaml").pop().unwrap()["spec"]["template"]["spec"]["securityContext"].take();
    assert_eq!(
        user,
        format!("{}:{}", pod["runAsUser"], pod["runAsGroup"]),
        "Kubernetes sees numbers alone"
    );
    assert!(!user.starts_with("0:"), "{user}");
    assert!(only("FROM").ends_with(":nonroot"));
    // What it writes to is its own.
    let (uid, gid) = user.split_once(':').unwrap();
    let store = only("VOLUME");
    let dockerfile = fs::read_to_string(deploy("Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("install -d -m 0700 -o {uid} -g {gid} /out{store}")));
    let environment = only("ENV");
    assert!(
        environment.contains(&format!("TURNHOOK_STORE__PATH={store}/")),
        "{environment}"
    );
    assert!(dockerfile.contains(&format!("/out{}", words(&only("ENTRYPOINT"))[0])));
}

/// What the image sets is taken, and its check of health tells whether it is well.
#[test]
fn the_images_check_of_health_tells_one_that_runs_from_one_that_does_not() {
    let mut program = Program::new("");
    let environment = only("ENV");
    let own: Vec<(&str, &str)> = environment
        .split(' ')
        .map(|setting| setting.split_once('=').unwrap())
        .collect();
    let listen = own
        .iter()
        .find(|(name, _)| *name == "TURNHOOK_HTTP__LISTEN")
        .unwrap();
    let (_, port) = listen.1.rsplit_once(':').unwrap();
    assert!(only("EXPOSE").split(' ').any(|exposed| exposed == port), "{port}");

    let (options, check) = {
        let health = only("HEALTHCHECK");
        let (options, check) = health.split_once("CMD ").unwrap();
        (options.to_owned(), words(check))
    };
    let (command, arguments) = check.split_first().unwrap();
    assert_eq!(command, &words(&only("ENTRYPOINT"))[0]);
    // Docker gives it more time than it takes for itself, so that it can say what is wrong.
    assert!(options.contains("--timeout=6s"), "{options}");
    let help = run(program.directory.path(), &["ready", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("[default: 5s]"));

    let here: Vec<String> = arguments
        .iter()
        .map(|word| word.replace(&format!(":{port}"), &format!(":{}", program.http)))
        .collect();
    assert_ne!(here, arguments, "it asks at the port that turnhook serves at");
    let here: Vec<&str> = here.iter().map(String::as_str).collect();
    // Without a configuration: the image has none of its own.
    let elsewhere = tempfile::tempdir().unwrap();
    let healthy = || run(elsewhere.path(), &here).status.code();
    assert_eq!(healthy(), Some(1));
    let (store, http) = (
        program.directory.path().join("image.db").display().to_string(),
        format!("0.0.0.0:{}", program.http),
    );
    let here_too: Vec<(&str, &str)> = own
        .iter()
        .map(|(name, _)| match *name {
            "TURNHOOK_STORE__PATH" => (*name, store.as_str()),
            "TURNHOOK_HTTP__LISTEN" => (*name, http.as_str()),
            other => panic!("{other} is not known here"),
        })
        .collect();
    program.start_with(&here_too);
    assert_eq!(healthy(), Some(0));
    program.stop();
    assert_eq!(healthy(), Some(1));
}
