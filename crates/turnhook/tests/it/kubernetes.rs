//! The files for Kubernetes. No cluster is asked: that they fit together, and to what turnhook serves.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use serde_json::Value;

use crate::{
    deploy::{SECRETS, deploy, yaml},
    harness::turnhook::command,
};

/// The manifests fit together, and the configuration in them is one.
#[test]
fn the_kubernetes_manifests_configure_turnhook() {
    let objects = yaml("kubernetes.yaml");
    let kinds: Vec<&str> = objects.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "ConfigMap",
            "Secret",
            "Service",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Deployment"
        ]
    );
    let [config_map, secret, service, policy, budget, deployment] = &objects[..] else {
        unreachable!()
    };
    for object in &objects {
        assert_eq!(object["metadata"]["name"], "turnhook");
    }
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    assert!(labels.as_object().is_some_and(|labels| !labels.is_empty()));
    for selector in [
        &service["spec"]["selector"],
        &policy["spec"]["podSelector"]["matchLabels"],
        &budget["spec"]["selector"]["matchLabels"],
        &deployment["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    assert_eq!(deployment["spec"]["replicas"], 2);
    let container = &pod["spec"]["containers"][0];
    let ports: Vec<&Value> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| &port["name"])
        .collect();
    for (probe, path) in [
        ("livenessProbe", "/livez"),
        ("startupProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert!(ports.contains(&&container[probe]["httpGet"]["port"]), "{probe}");
    }
    assert!(ports.contains(&&service["spec"]["ports"][0]["targetPort"]));
    assert!(ports.contains(&&policy["spec"]["ingress"][0]["ports"][0]["port"]));

    // As in the pod: files where the volumes are mounted, and variables.
    let directory = tempfile::tempdir().unwrap();
    let here = |path: &str| directory.path().join(path.trim_start_matches('/'));
    let mut check = command(directory.path());
    for mount in container["volumeMounts"].as_array().unwrap() {
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"])
            .unwrap();
        let path = mount["mountPath"].as_str().unwrap();
        fs::create_dir_all(here(path)).unwrap();
        let files = if volume["configMap"]["name"] == config_map["metadata"]["name"] {
            &config_map["data"]
        } else {
            assert_eq!(volume["secret"]["secretName"], secret["metadata"]["name"]);
            &secret["stringData"]
        };
        for (name, content) in files.as_object().unwrap() {
            let root = directory.path().to_str().unwrap();
            let content = content
                .as_str()
                .unwrap()
                .replace("\"/run/", &format!("\"{root}/run/"))
                .replace("whsec_change-me", SECRETS[1].1);
            fs::write(here(path).join(name), content).unwrap();
        }
    }
    for variable in container["env"].as_array().unwrap() {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => "turnhook-7d4b9c6f5d-x2x7q".to_owned(),
            _ => here(variable["value"].as_str().unwrap()).display().to_string(),
        };
        check.env(variable["name"].as_str().unwrap(), value);
    }
    let output = check.args(["check", "--format", "json"]).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let config: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["store"]["node"], "turnhook-7d4b9c6f5d-x2x7q");
    let listen = config["http"]["listen"].as_str().unwrap();
    let port = container["ports"][0]["containerPort"].to_string();
    assert_eq!(listen, format!("0.0.0.0:{port}"));
    let stop = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert_eq!(config["shutdown_grace"], "20s");
    assert!(stop > 20);
}

/// What the Prometheus Operator scrapes are the pods of the Deployment, by the job's name that the alerts ask for.
#[test]
fn the_operator_of_prometheus_finds_the_pods_and_the_alerts() {
    let objects = yaml("kubernetes.monitoring.yaml");
    let [monitor] = &objects[..] else {
        panic!("{objects:?}")
    };
    assert_eq!(monitor["kind"], "PodMonitor");
    let deployment = yaml("kubernetes.yaml").pop().unwrap();
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    assert_eq!(&monitor["spec"]["selector"]["matchLabels"], labels);
    let job = monitor["spec"]["jobLabel"].as_str().unwrap();
    assert_eq!(labels[job], "turnhook");
    let rules = fs::read_to_string(deploy("prometheus/turnhook.rules.yaml")).unwrap();
    assert!(rules.contains("job=\"turnhook\""));
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], pod["spec"]["containers"][0]["ports"][0]["name"]);
    assert_eq!(endpoint["path"], "/metrics");

    // The command that makes a PrometheusRule, with a kubectl that only shows what it is given.
    let text = fs::read_to_string(deploy("kubernetes.monitoring.yaml")).unwrap();
    let commands: Vec<&str> = text.lines().map_while(|line| line.strip_prefix('#')).collect();
    let start = commands
        .iter()
        .position(|line| line.trim().starts_with("{ printf"))
        .unwrap();
    let end = start + commands[start..].iter().position(|line| line.is_empty()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let kubectl = directory.path().join("kubectl");
    fs::write(&kubectl, "#!/bin/sh\nexec cat\n").unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        directory.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("sh")
        .args(["-ec", &commands[start..end].join("\n")])
        .current_dir(deploy(""))
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rule: Value = serde_saphyr::from_str(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    let shipped: Value = serde_saphyr::from_str(&rules).unwrap();
    assert_eq!(rule["kind"], "PrometheusRule");
    assert_eq!(rule["apiVersion"], monitor["apiVersion"]);
    assert_eq!(rule["metadata"]["name"], "turnhook");
    assert_eq!(rule["spec"], shipped);
}
