//! The pages at the top, and those that they name: links lead somewhere, and the files and tests that it names exist.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The targets of a page's links that lead to files, each with its anchor.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0));
    targets
        .filter(|target| !target.starts_with("http"))
        .map(|target| target.split_once('#').unwrap_or((target, "")))
}

/// As GitHub names a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// All pages that can be read from these on, each of which links to what exists.
fn read_all(mut pages: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut read = 0;
    while let Some(page) = pages.get(read).cloned() {
        read += 1;
        let text = fs::read_to_string(&page).unwrap();
        for (file, wanted) in links(&text) {
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let target = target
                .canonicalize()
                .unwrap_or_else(|_| panic!("{} links to {file}", page.display()));
            if target.extension().is_none_or(|e| e != "md") {
                continue;
            }
            let there = fs::read_to_string(&target).unwrap();
            let mut headings = there
                .lines()
                .filter_map(|line| line.split_once("# "))
                .map(|(_, h)| h);
            assert!(
                wanted.is_empty() || headings.any(|heading| anchor(heading) == wanted),
                "{} links to {file}#{wanted}",
                page.display()
            );
            if !pages.iter().any(|known| known.canonicalize().unwrap() == target) {
                pages.push(target);
            }
        }
    }
    pages
}

#[test]
fn links_lead_somewhere() {
    let first = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    let read = read_all(first.map(|page| root().join(page)).to_vec());
    assert!(read.len() > 9, "only {read:?}");
}

/// An operator reads where there are no sources.
#[test]
fn what_the_packages_bring_to_read_links_to_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let doc = directory.path().canonicalize().unwrap().join("doc");
    let laid_out = Command::new(root().join("deploy/package/doc.py"))
        .arg(&doc)
        .output()
        .unwrap();
    assert!(laid_out.status.success(), "{laid_out:?}");
    let read = read_all(vec![doc.join("README.md")]);
    assert!(read.iter().all(|page| page.starts_with(&doc)), "{read:?}");
    // All of them can be come upon, and the unit and the alerts name some.
    let mut folders = vec![doc.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                assert!(
                    read.iter().any(|page| page.canonicalize().unwrap() == path),
                    "nothing links to {}",
                    path.display()
                );
            }
        }
    }
    for names in ["deploy/turnhook.service", "deploy/prometheus/turnhook.rules.yaml"] {
        let text = fs::read_to_string(root().join(names)).unwrap();
        let pages = text
            .split("share/doc/turnhook/")
            .skip(1)
            .map(|rest| &rest[..rest.find(['#', '"', '\n']).unwrap()]);
        for page in pages {
            assert!(doc.join(page).is_file(), "{names} names {page}");
        }
    }
}

#[test]
fn files_and_tests_are_where_the_map_says() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let crates: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap() + "/")
        .collect();
    let mut seen = 0;
    for name in text.split('`').skip(1).step_by(2) {
        if !crates.iter().any(|one| name.starts_with(one.as_str())) {
            continue;
        }
        let (before, rest) = name.split_once('{').unwrap_or((name, "}"));
        let (choices, after) = rest.split_once('}').unwrap();
        for choice in choices.split(',') {
            let path = format!("crates/{before}{choice}{after}");
            assert!(root().join(&path).exists(), "ARCHITECTURE.md names {path}");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} files");
}
