//! The page of conformance names tests that there are, and code that there is.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The words between backquotes on the page.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| line.starts_with('|')).flat_map(|l| l.split('`').skip(1).step_by(2))
}

#[test]
fn each_test_on_the_page_is_there() {
    let page = std::fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let mut found = 0;
    for (file, name) in quoted(&page).filter_map(|text| text.split_once("::")) {
        let path = match file.strip_prefix("netns/") {
            Some(file) => format!("tests/netns/{file}.rs"),
            None => format!("crates/dhcp/tests/{file}.rs"),
        };
        let text = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        assert!(text.contains(&format!("fn {name}(")), "there is no {name} in {path}");
        found += 1;
    }
    assert!(found > 60, "only {found} tests are named");
}

#[test]
fn each_file_of_code_on_the_page_is_there() {
    let page = std::fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let files = quoted(&page).filter(|text| text.ends_with(".rs"));
    for file in files {
        let places = ["crates/dhcp/src", "crates/netd/src"];
        let there = places.iter().any(|place| root().join(place).join(file).is_file());
        assert!(there, "there is no {file}");
    }
}
