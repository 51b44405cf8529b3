//! What cannot be so is said. A `let … else` that goes away either calls `broken`, or has a comment that says why that is as
//! it should be: by the code alone nobody sees which of the two it is.

use std::{fs, path::Path};

/// The lines at which one goes away without a word.
fn silent(code: &str) -> Vec<usize> {
    let lines: Vec<&str> = code.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if line.trim() == "#[cfg(test)]" && lines.get(at + 1).is_some_and(|next| next.starts_with("mod ")) {
            break;
        }
        // As rustfmt has it: the block of an `if` begins after its brace, that of a `let` does not.
        let Some((before, short)) = line.split_once("else {") else {
            continue;
        };
        if before.trim() == "}" || before.trim_start().starts_with("//") || before.contains("if ") {
            continue;
        }
        let body = lines[at + 1..]
            .iter()
            .take_while(|next| indent(next) > indent(line))
            .filter(|_| short.is_empty());
        let says = |part: &str| part.contains("broken(") || part.contains("// ");
        if !says(short) && !body.into_iter().any(|part| says(part)) {
            found.push(at + 1);
        }
    }
    found
}

fn look(folder: &Path, looked_at: &mut usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look(&path, looked_at, found);
            continue;
        }
        let code = fs::read_to_string(&path).unwrap();
        *looked_at += code.matches("else {").count();
        let name = path.display();
        found.extend(silent(&code).into_iter().map(|line| format!("{name}:{line}")));
    }
}

#[test]
fn nothing_goes_away_without_a_word() {
    let (mut looked_at, mut found) = (0, Vec::new());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    look(&source, &mut looked_at, &mut found);
    assert!(looked_at > 100, "only {looked_at} were looked at");
    assert!(
        found.is_empty(),
        "these want `broken`, or a comment in the block that says why they are no fault:\n{}",
        found.join("\n")
    );
}

#[test]
fn those_without_a_word_are_found() {
    let code = "
    let Some(a) = b else {
        return;
    };
    let Some(a) = b
        .c()
    else {
        return self.broken(\"no b\");
    };
    let Some(a) = b else {
        continue; // there need be none
    };
    let Some(a) = b else { return };
    let a = if b { 1 } else { 2 };
    if b {
        1
    } else {
        2
    }
}
#[cfg(test)]
mod tests {
    let Some(a) = b else {
        return;
    };
";
    assert_eq!(silent(code), [2, 13]);
}
