//! Who may import whom: the walls between the crates and between the modules of `common`.

#![allow(
    clippy::unwrap_used,
    reason = "Clippy does not take functions that tests share for tests"
)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

static METADATA: LazyLock<Metadata> = LazyLock::new(|| MetadataCommand::new().current_dir(workspace()).exec().unwrap());

/// Licenses that nobody has to ask a lawyer about.
const LICENSES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Modules of `common` that serve the services; every other one is of the domain, and knows neither how anything is
/// stored nor how it is asked.
const NOT_DOMAIN: [&str; 10] = [
    "admin",
    "build",
    "config",
    "healthcheck",
    "lib",
    "metrics",
    "readiness",
    "shutdown",
    "store",
    "telemetry",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn package(name: &str) -> &'static Package {
    METADATA
        .packages
        .iter()
        .find(|package| package.name.as_str() == name)
        .unwrap()
}

fn dependencies(name: &str, kind: DependencyKind) -> Vec<&'static str> {
    let dependencies = package(name)
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == kind);
    dependencies.map(|dependency| dependency.name.as_str()).collect()
}

/// Rust files under a folder of the workspace, with their paths from the workspace on.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![workspace().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(workspace()).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources under {folder}");
    found
}

/// Whether the code, comments aside, names something of a crate.
fn names(source: &str, krate: &str) -> bool {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split(|character: char| !(character.is_alphanumeric() || "_:".contains(character))))
        .any(|word| word == krate || word.strip_prefix(krate).is_some_and(|rest| rest.starts_with("::")))
}

#[test]
fn query_api_names_no_crate_that_could_write() {
    let named = dependencies("flagstate-query-api", DependencyKind::Normal);
    assert!(named.contains(&"flagstate-common"), "{named:?}");
    for forbidden in [
        "diesel",
        "diesel-async",
        "diesel_migrations",
        "reqwest",
        "tokio-postgres",
        "flagstate-migrations",
        "flagstate-indexer",
    ] {
        assert!(!named.contains(&forbidden), "query-api depends on {forbidden}");
    }
}

#[test]
fn services_do_not_depend_on_each_other_and_nothing_depends_on_them() {
    for package in METADATA.workspace_packages() {
        for dependency in &package.dependencies {
            let service = ["flagstate-indexer", "flagstate-query-api"].contains(&dependency.name.as_str());
            assert!(!service, "{} depends on {}", package.name, dependency.name);
        }
    }
}

#[test]
fn test_support_is_in_no_service() {
    for service in [
        "flagstate-common",
        "flagstate-indexer",
        "flagstate-query-api",
        "flagstate-migrations",
    ] {
        assert!(
            !dependencies(service, DependencyKind::Normal).contains(&"flagstate-test-support"),
            "{service}"
        );
    }
}

#[test]
fn domain_modules_know_neither_sql_nor_http_nor_logs() {
    let module_of = |name: &str| {
        let rest = name.trim_start_matches("common/src/").trim_end_matches(".rs");
        rest.split('/').next().unwrap().to_owned()
    };
    let domain: Vec<_> = sources("common/src")
        .into_iter()
        .filter(|(name, _)| !NOT_DOMAIN.contains(&module_of(name).as_str()))
        .collect();
    assert!(domain.iter().any(|(name, _)| name == "common/src/digest.rs"));
    for (name, source) in domain {
        for krate in [
            "diesel",
            "diesel_async",
            "tokio_postgres",
            "actix_web",
            "reqwest",
            "tracing",
            "tokio",
        ] {
            assert!(!names(&source, krate), "{name} uses {krate}");
        }
        assert!(!source.contains("crate::store"), "{name} uses the store");
    }
}

#[test]
fn sql_is_spoken_in_the_stores_only() {
    for folder in ["common/src", "indexer/src", "query-api/src"] {
        for (name, source) in sources(folder) {
            let in_store = ["/src/store/", "/src/store.rs"]
                .iter()
                .any(|place| name.contains(place));
            for krate in ["diesel", "diesel_async"] {
                assert!(in_store || !names(&source, krate), "{name} uses {krate}");
            }
        }
    }
}

#[test]
fn every_crate_comes_from_crates_io() {
    for package in &METADATA.packages {
        let from = package.source.as_ref().map(|source| source.repr.as_str());
        let ours = from.is_none() && METADATA.workspace_members.contains(&package.id);
        let expected = Some("registry+https://github.com/rust-lang/crates.io-index");
        assert!(ours || from == expected, "{} comes from {from:?}", package.name);
    }
}

#[test]
fn every_license_is_one_that_we_allow() {
    for package in &METADATA.packages {
        let license = package.license.as_deref().unwrap_or_default();
        assert!(allows(license), "{} is licensed {license:?}", package.name);
    }
}

/// Whether an SPDX expression can be met with [`LICENSES`]: all parts of an AND, one of an OR.
fn allows(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut parts = expression.split(" AND ").peekable();
    parts.peek().is_some_and(|part| !part.is_empty())
        && parts.all(|part| {
            let mut choices = part.trim_matches(['(', ')', ' ']).split(" OR ");
            choices.any(|choice| LICENSES.contains(&choice.trim_matches(['(', ')', ' '])))
        })
}

#[test]
fn license_expressions_are_read() {
    let cases = [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0", false),
        ("", false),
    ];
    for (expression, allowed) in cases {
        assert_eq!(allows(expression), allowed, "{expression}");
    }
}

#[test]
fn names_are_found_in_code_and_not_in_comments_or_longer_words() {
    assert!(names("use diesel::prelude;", "diesel"));
    assert!(names("    let x = tracing::info_span!(\"a\");", "tracing"));
    assert!(names("use {tokio::net, std::fs};", "tokio"));
    assert!(!names("// diesel::prelude", "diesel"));
    assert!(!names("use diesel_async::X;", "diesel"));
}
