//! `docs/DEFECTS.md` and `docs/PROMISES.md` name tests that exist, and every clause of every defect has one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may be blunt")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many clauses each of the defects 1 to 36 has.
const CLAUSES: [u8; 36] = [
    2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 2, 5, 1, 3, 2, 2, 1, 6, 3, 7, 5, 8, 5, 12, 4, 2, 3, 4, 3, 6, 2, 5, 2, 3, 5,
];

/// Folders of the workspace that hold no source of ours.
const NO_SOURCE: [&str; 3] = [".git", "node_modules", "target"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !NO_SOURCE.contains(&name.as_str()) {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of the functions in a source that have a `test` attribute, of whatever library.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if let Some(attribute) = line.strip_prefix("#[") {
            let name = attribute.split(['(', ']']).next().unwrap_or_default();
            is_test |= name == "test" || name.ends_with("::test");
        } else if let Some((_, function)) = line.split_once("fn ") {
            if is_test {
                tests.insert(function.split(['(', '<']).next().unwrap().to_owned());
            }
            is_test = false;
        } else if !line.starts_with("//") {
            is_test = false;
        }
    }
    tests
}

/// Tests by file, its path relative to the workspace.
fn all_tests() -> BTreeMap<String, BTreeSet<String>> {
    let workspace = workspace();
    let mut files = Vec::new();
    sources(&workspace, &mut files);
    let relative = |file: &Path| file.strip_prefix(&workspace).unwrap().to_string_lossy().into_owned();
    let tests = files
        .iter()
        .map(|file| (relative(file), tests_in(&std::fs::read_to_string(file).unwrap())));
    tests.filter(|(_, tests)| !tests.is_empty()).collect()
}

/// Cells of the rows of a document's tables, without those of the head.
fn rows(document: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(workspace().join("docs").join(document)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|')).map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    rows.filter(|cells| cells[0].starts_with(|first: char| first.is_ascii_digit()))
        .collect()
}

/// What stands between backticks and is the name of a test: `name`, `start_of_names_*` or `file::name`.
fn names(cell: &str) -> Vec<&str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter(|text| !text.contains(' ')).collect()
}

fn exists(name: &str, tests: &BTreeMap<String, BTreeSet<String>>) -> bool {
    if let Some((file, name)) = name.split_once("::") {
        return tests.get(file).is_some_and(|tests| tests.contains(name));
    }
    tests.values().flatten().any(|test| match name.strip_suffix('*') {
        Some(start) => test.starts_with(start),
        None => test == name,
    })
}

#[test]
fn every_clause_of_every_defect_names_tests_that_exist() {
    let tests = all_tests();
    let rows = rows("DEFECTS.md");
    let expected: Vec<String> = (1..)
        .zip(CLAUSES)
        .flat_map(|(number, clauses)| (b'a'..b'a' + clauses).map(move |letter| format!("{number}{}", letter as char)))
        .collect();
    let found: Vec<&String> = rows.iter().map(|cells| &cells[0]).collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    for cells in &rows {
        assert_eq!(cells.len(), 4, "{cells:?}");
        let names = names(&cells[3]);
        assert!(!names.is_empty(), "{} has no test", cells[0]);
        for name in names {
            assert!(exists(name, &tests), "{}: there is no test {name}", cells[0]);
        }
    }
}

#[test]
fn promises_name_tests_that_exist() {
    let tests = all_tests();
    let rows = rows("PROMISES.md");
    assert_eq!(rows.len(), 14);
    for cells in &rows {
        for name in names(cells.last().unwrap()) {
            assert!(exists(name, &tests), "{}: there is no test {name}", cells[0]);
        }
    }
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "
        #[test]
        fn one() {}
        #[tokio::test(flavor = \"multi_thread\")]
        #[ignore]
        // Why.
        async fn two() { fn no() {} }
        #[cfg(test)]
        fn three() {}
        fn four() {}
    ";
    let found: Vec<_> = tests_in(source).into_iter().collect();
    assert_eq!(found, ["one", "two"]);
}
