//! TRAPS.md (of the subscriber) lists the traps of coturn's stream, each with the tests that guard it: those tests exist.

use std::{fs, path::Path};

#[test]
fn each_trap_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("crates/subscriber/TRAPS.md")).unwrap();
    let table = text.split_once("<!-- traps: begin -->").unwrap().1;
    let table = table.split_once("<!-- traps: end -->").unwrap().0;
    let mut numbers = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        numbers.push(cells[0].parse::<u32>().unwrap());
        let tests: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            if let Some((file, name)) = test.split_once("::") {
                let code = fs::read_to_string(root.join("crates").join(file)).unwrap_or_default();
                assert!(code.contains(&format!("fn {name}(")), "no test {test}");
            } else {
                assert!(root.join(test).exists(), "no script {test}");
            }
        }
    }
    assert_eq!(numbers, (1..=27).chain([29, 30]).collect::<Vec<_>>());
}
