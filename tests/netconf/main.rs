//! Integration tests: the files that netconf/ ships work as they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vnet_api::model::{Network, State};
use vnet_tests::{Host, nat, wait};

/// The names and texts of the definitions that are shipped.
fn shipped() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../netconf/networks");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect()
}

#[test]
fn netd_takes_every_shipped_definition_as_it_stands() {
    let host = Host::new();
    let definitions = shipped();
    for (name, text) in &definitions {
        host.define(name, text);
    }
    let _netd = host.netd();
    assert_eq!(wait(host.client().status()).unwrap().broken, []);
    let networks: Vec<Network> = wait(host.client().networks()).unwrap();
    let names: Vec<_> = networks.iter().map(|network| network.definition.name.as_str()).collect();
    assert_eq!(names, definitions.keys().collect::<Vec<_>>());
    assert!(names.contains(&"default"));
    for network in networks {
        let name = network.definition.name.to_string();
        let expected = if network.definition.autostart { State::Active } else { State::Stopped };
        assert_eq!(network.state, expected, "{name}");
        if expected == State::Stopped {
            host.start(&name).unwrap();
        }
    }
}

#[test]
fn the_shipped_default_is_what_create_makes() {
    let (by_hand, by_command) = (Host::new(), Host::new());
    by_hand.define("default", &shipped()["default"]);
    let (_netd, _other) = (by_hand.netd(), by_command.netd());
    by_command.create(&nat("default")).unwrap();
    assert_eq!(by_hand.network("default").definition, by_command.network("default").definition);
}

#[test]
fn what_a_shipped_definition_shows_in_comments_is_valid_too() {
    for (name, text) in shipped() {
        // A comment that is TOML is an example: `# key = value` or `# [table]`.
        let examples = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") => rest,
            _ => line,
        });
        let host = Host::new();
        host.define(&name, &examples.collect::<Vec<_>>().join("\n"));
        let _netd = host.netd();
        assert_eq!(wait(host.client().status()).unwrap().broken, [], "{name}");
    }
}
