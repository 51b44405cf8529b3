//! The packages: that both hold the same, and that what they bring along is right.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use crate::{deploy::deploy, harness::turnhook::command};

/// The .deb and the .rpm are made of two lists in the manifest.
#[test]
fn both_packages_hold_the_same_files() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = fs::read_to_string(root.join("crates/turnhook/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let metadata = &manifest["package"]["metadata"];
    // What is staged by deploy/release.sh is made there; all else stands in the repository.
    let is_there = |source: &str| source.starts_with("target/package/") || root.join(source).is_file();
    let name = |source: &str| {
        source
            .rsplit('/')
            .next()
            .unwrap()
            .trim_end_matches(".gz")
            .to_owned()
    };

    let mut deb = Vec::new();
    for asset in metadata["deb"]["assets"].as_array().unwrap() {
        let source = asset[0].as_str().unwrap().trim_start_matches("../../");
        assert!(is_there(source), "{source} of the .deb does not exist");
        deb.push(name(source));
    }
    let mut rpm = Vec::new();
    for asset in metadata["generate-rpm"]["assets"].as_array().unwrap() {
        let source = asset["source"].as_str().unwrap();
        assert!(is_there(source), "{source} of the .rpm does not exist");
        rpm.push(name(source));
    }
    // Each has its own way to say a licence and news, and cargo-deb adds the unit by itself.
    deb.retain(|name| {
        ![
            "copyright",
            "NEWS.Debian",
            "changelog.Debian",
            "lintian-overrides",
        ]
        .contains(&name.as_str())
    });
    rpm.retain(|name| name != "LICENSE" && name != "turnhook.service");
    deb.sort();
    rpm.sort();
    assert_eq!(deb, rpm);

    let scripts = [
        "rpm/post",
        "rpm/preun",
        "rpm/postun",
        "debian/postinst",
        "debian/prerm",
        "debian/postrm",
    ];
    for script in scripts {
        let checked = Command::new("sh")
            .arg("-n")
            .arg(deploy("package").join(script))
            .output()
            .unwrap();
        assert!(
            checked.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}

/// What the package brings is a configuration that lacks nothing but a source and an endpoint.
#[test]
fn the_packaged_configuration_asks_for_a_source_and_holds_once_its_examples_are_uncommented() {
    let directory = tempfile::tempdir().unwrap();
    let packaged = fs::read_to_string(deploy("package/turnhook.toml")).unwrap();
    let file = directory.path().join("turnhook.toml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        command(directory.path())
            .arg("check")
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap()
    };
    let empty = check(&packaged);
    assert_eq!(empty.status.code(), Some(78));
    assert!(
        String::from_utf8_lossy(&empty.stderr).contains("source"),
        "{empty:?}"
    );
    // Lines of configuration follow their comment sign at once, sentences after a space.
    let filled: String = packaged
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let store = format!("path = \"{}\"", directory.path().join("turnhook.db").display());
    let filled = filled
        .replace("path = \"/var/lib/turnhook/turnhook.db\"", &store)
        .replace("whsec_…", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let whole = check(&filled);
    let said = String::from_utf8_lossy(&whole.stderr);
    assert!(whole.status.success() && !said.contains("warning"), "{said}");
}

/// What is shipped is one build: small, and without a path of the machine that built it.
#[test]
fn what_is_shipped_holds_no_paths_and_no_debug_information() {
    let manifest = fs::read_to_string(deploy("../Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let dist = &manifest["profile"]["dist"];
    assert_eq!(dist["debug"].as_bool(), Some(false), "{dist}");
    assert_eq!(dist["strip"].as_str(), Some("symbols"), "{dist}");

    // A cargo that only writes down how it is called.
    let directory = tempfile::tempdir().unwrap();
    let cargo = directory.path().join("cargo");
    fs::write(
        &cargo,
        "#!/bin/sh\nprintf '%s\\n' \"$*\" \"$RUSTFLAGS\" \"$CFLAGS\"\n",
    )
    .unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        directory.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("bash")
        .arg(deploy("build.sh"))
        .env("PATH", path)
        .env("CARGO_HOME", "/somebodys/home/.cargo")
        .env("RUSTFLAGS", "-Cown")
        .env_remove("CFLAGS")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let [arguments, rust, c] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}");
    };
    assert!(
        arguments.starts_with("build --profile dist --locked "),
        "{arguments}"
    );
    let sources = fs::canonicalize(deploy("..")).unwrap();
    for (place, becomes) in [
        ("/somebodys/home/.cargo", "/cargo"),
        (sources.to_str().unwrap(), "/turnhook"),
    ] {
        assert!(
            rust.contains(&format!("--remap-path-prefix={place}={becomes} ")),
            "{rust}"
        );
        assert!(
            c.contains(&format!("-ffile-prefix-map={place}={becomes} ")),
            "{c}"
        );
    }
    assert!(rust.ends_with("-Cown"), "{rust}");

    // Packages, tarball and image are made of it.
    for maker in ["release.sh", "Dockerfile"] {
        let text = fs::read_to_string(deploy(maker)).unwrap();
        assert!(text.contains("deploy/build.sh"), "{maker}");
        assert!(!text.contains("cargo build"), "{maker}");
    }
}
