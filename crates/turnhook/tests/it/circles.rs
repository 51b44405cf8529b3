//! No crate imports another but where ARCHITECTURE.md says so, and no file imports in a circle with another: whoever reads
//! one need not have read those that use it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module, or a path to something in one, from the crate's root.
type Names = Vec<String>;

#[derive(Default)]
struct File {
    items: BTreeSet<String>,
    children: BTreeSet<String>,
    /// What a name that is imported stands for, and whether it is passed on.
    imports: BTreeMap<String, (Names, bool)>,
    /// What is written in the code.
    paths: BTreeSet<Names>,
}

/// The paths of an import, each with the name that it gets here.
fn import(tokens: &[TokenTree], prefix: &[String], found: &mut Vec<(Names, String)>) {
    for part in tokens.split(|token| token.to_string() == ",") {
        let (mut path, mut name) = (prefix.to_vec(), String::new());
        for token in part {
            match token {
                TokenTree::Group(group) => {
                    import(&group.stream().into_iter().collect::<Vec<_>>(), &path, found);
                    path.clear();
                }
                TokenTree::Punct(colon) if colon.as_char() == ':' => {}
                token if name == "as" => name = token.to_string(),
                token => {
                    name = token.to_string();
                    if name != "as" && (name != "self" || path.is_empty()) {
                        path.push(name.clone());
                    }
                }
            }
        }
        if let Some(last) = path.last() {
            let name = if name == "self" { last.clone() } else { name };
            found.push((path, name));
        }
    }
}

fn is_for_tests(attribute: &TokenTree) -> bool {
    let text = attribute.to_string().replace(' ', "");
    text.starts_with("[cfg(") && text.contains("test") && !text.contains("not(")
}

impl File {
    /// `inner`: in a module of the same file, whose `super` this file is.
    fn read(&mut self, stream: TokenStream, inner: bool) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let word = |at: usize| match tokens.get(at) {
            Some(TokenTree::Ident(_) | TokenTree::Punct(_)) => tokens[at].to_string(),
            _ => String::new(),
        };
        let up = |name: String| {
            if inner && name == "super" {
                "self".to_owned()
            } else {
                name
            }
        };
        let mut at = 0;
        while at < tokens.len() {
            let next = word(at + 1);
            match (word(at).as_str(), &tokens[at]) {
                ("#", _) if tokens.get(at + 1).is_some_and(is_for_tests) => {
                    let is_last = |t: &TokenTree| match t {
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        other => [";", ","].contains(&other.to_string().as_str()),
                    };
                    at += 2;
                    at += tokens[at..].iter().position(is_last).unwrap_or_default();
                }
                ("mod", _) if word(at + 2) == ";" => {
                    self.children.insert(next);
                    at += 1;
                }
                ("mod", _) => {
                    self.items.insert(next);
                    if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                        self.read(body.stream(), true);
                    }
                    at += 2;
                }
                ("use", _) if next != "<" => {
                    let length = tokens[at..].iter().position(|t| t.to_string() == ";").unwrap();
                    let (mut found, before) = (Vec::new(), at.saturating_sub(2)..at);
                    let passed_on = tokens[before].iter().any(|t| t.to_string() == "pub");
                    import(&tokens[at + 1..at + length], &[], &mut found);
                    for (mut path, name) in found {
                        path[0] = up(path[0].clone());
                        self.imports.insert(name, (path, passed_on));
                    }
                    at += length;
                }
                ("fn" | "struct" | "enum" | "trait" | "type" | "const" | "static", _) => {
                    self.items.insert(next);
                    at += 1;
                }
                (_, TokenTree::Group(group)) => self.read(group.stream(), inner),
                (name, TokenTree::Ident(_)) if at == 0 || word(at - 1) != "." => {
                    let mut path = vec![up(name.to_owned())];
                    while word(at + 1) == ":" && word(at + 2) == ":" && !word(at + 3).is_empty() {
                        path.push(word(at + 3));
                        at += 3;
                    }
                    self.paths.insert(path);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// From the crate's root, where it is of this crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Names> {
        let ups = path
            .iter()
            .take_while(|name| ["super", "self"].contains(&name.as_str()));
        let (skip, supers) = (ups.clone().count(), ups.filter(|name| *name == "super").count());
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            first if skip > 0 || self.children.contains(first) => {
                Some([&module[..module.len() - supers], &path[skip..]].concat())
            }
            _ => None,
        }
    }
}

fn load(path: &Path, folder: &Path, module: Names, files: &mut BTreeMap<Names, File>) {
    let mut file = File::default();
    file.read(fs::read_to_string(path).unwrap().parse().unwrap(), false);
    for child in &file.children {
        let folder = folder.join(child);
        let beside = folder.with_extension("rs");
        let path = if beside.exists() {
            beside
        } else {
            folder.join("mod.rs")
        };
        load(
            &path,
            &folder,
            [module.as_slice(), std::slice::from_ref(child)].concat(),
            files,
        );
    }
    files.insert(module, file);
}

/// The file that defines what a path leads to, through all that pass it on. `None`: it is of another crate.
fn defined(files: &BTreeMap<Names, File>, path: &[String], depth: usize) -> Option<Names> {
    let known = (0..=path.len()).rev().find(|n| files.contains_key(&path[..*n]))?;
    let (module, rest) = (&path[..known], &path[known..]);
    let file = &files[module];
    let [name, rest @ ..] = rest else {
        return Some(module.to_vec());
    };
    if file.items.contains(name) || depth > 9 {
        return Some(module.to_vec());
    }
    if let Some((path, _)) = file.imports.get(name) {
        return defined(
            files,
            &[file.absolute(module, path)?.as_slice(), rest].concat(),
            depth + 1,
        );
    }
    Some(module.to_vec())
}

#[test]
fn no_files_import_in_a_circle() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut circles, mut arrows) = (Vec::new(), 0);
    for folder in fs::read_dir(&crates).unwrap() {
        let (source, mut files) = (folder.unwrap().path().join("src"), BTreeMap::new());
        load(&source.join("lib.rs"), &source, Vec::new(), &mut files);
        let mut uses: BTreeSet<(Names, Names)> = BTreeSet::new();
        for (module, file) in &files {
            // Imported modules are used by the paths that begin with them; what is only passed on is not used.
            let imported = file
                .imports
                .values()
                .filter(|(_, passed_on)| !passed_on)
                .map(|(path, _)| path.clone());
            let written = file.paths.iter().map(|path| match file.imports.get(&path[0]) {
                Some((stands_for, _)) => [stands_for.as_slice(), &path[1..]].concat(),
                None => path.clone(),
            });
            for path in imported.chain(written) {
                let Some(path) = file.absolute(module, &path) else {
                    continue;
                };
                let found = defined(&files, &path, 0).filter(|found| found != module && *found != path);
                uses.extend(found.map(|found| (module.clone(), found)));
            }
        }
        arrows += uses.len();
        // What takes from nobody who is left, or gives to nobody, is in no circle.
        loop {
            let (from, to): (BTreeSet<Names>, BTreeSet<Names>) = uses.iter().cloned().unzip();
            let before = uses.len();
            uses.retain(|(a, b)| to.contains(a) && from.contains(b));
            if uses.len() == before {
                break;
            }
        }
        let of = source.parent().unwrap().file_name().unwrap().display();
        let shown = |(a, b): &(Names, Names)| format!("{of}: {} uses {}", a.join("::"), b.join("::"));
        circles.extend(uses.iter().map(shown));
    }
    assert!(arrows > 500, "only {arrows} imports were found");
    assert!(
        circles.is_empty(),
        "files import in circles:\n{}",
        circles.join("\n")
    );
}

#[test]
fn crates_import_each_other_as_the_map_says() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut imports = BTreeSet::new();
    for folder in fs::read_dir(&crates).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        let manifest: toml::Table = fs::read_to_string(folder.path().join("Cargo.toml"))
            .unwrap()
            .parse()
            .unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap().keys();
        let ours = dependencies.filter_map(|of| of.strip_prefix("turnhook-"));
        imports.extend(ours.map(|of| format!("{name} {of}")));
    }
    // The program sees all, and all stand on the reducer.
    imports.retain(|import| !import.starts_with("turnhook ") && !import.ends_with(" reducer"));
    assert_eq!(
        imports.iter().map(String::as_str).collect::<Vec<_>>(),
        ["admin store", "control subscriber"]
    );
}
