//! The pages say what is so: each test that one names is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The words between backquotes in the rows of the page's tables.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| line.starts_with('|')).flat_map(|l| l.split('`').skip(1).step_by(2))
}

#[test]
fn each_test_on_the_page_of_demands_is_there() {
    let page = std::fs::read_to_string(root().join("docs/demands.md")).unwrap();
    let mut found = 0;
    for (file, name) in quoted(&page).filter_map(|text| text.split_once("::")) {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        assert!(text.contains(&format!("fn {name}(")), "there is no {name} in {file}");
        found += 1;
    }
    assert!(found > 40, "only {found} tests are named");
}
