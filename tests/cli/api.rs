//! netd's API without the command: the lines of the README, as they stand there.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use vnet_testkit::output_within;

use crate::World;

const README: &str = include_str!("../../README.md");

/// Runs one line of the README in a shell, in the world's namespace and folder.
fn answer(world: &World, line: &str) -> String {
    let mut command: Command = world.netd.ns().command("/bin/sh");
    command.args(["-ec", line]).current_dir(world.root.path());
    command.env("VNET_ROOT", world.root.path());
    let output = output_within(&mut command, Duration::from_secs(30)).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_readmes_lines_for_curl_do_what_it_says() {
    let world = World::new();
    let lines: Vec<&str> = README.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 8, "{lines:?}");
    let answers: Vec<String> = lines.iter().map(|line| answer(&world, line)).collect();
    let of = |words: &str| -> &str {
        let place = lines.iter().position(|line| line.contains(words)).unwrap();
        &answers[place]
    };
    let json = |words: &str| -> Value {
        serde_json::from_str(of(words)).unwrap_or_else(|error| panic!("{words}: {error}"))
    };
    assert_eq!(json("/v1/status")["pid"], world.netd.pid());
    let created = json("--json");
    assert_eq!(created["network"]["definition"]["mode"], "nat", "{created}");
    assert_eq!(json("networks/lab")["state"], "active");
    assert_eq!(of("-o lab.toml"), "");
    let text = std::fs::read_to_string(world.root.path().join("lab.toml")).unwrap();
    assert!(text.starts_with("name = \"lab\""), "{text}");
    assert_eq!(json("-T lab.toml")["plan"], serde_json::json!([]));
    assert_eq!(json("/v1/leases"), serde_json::json!([]));
    assert!(json("-X DELETE")["plan"].to_string().contains("delete link virbr0"));
    let served: Value = serde_json::from_str(of("openapi.json")).unwrap();
    let committed: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    assert_eq!(served, committed, "what is served is what is in the repository");
    assert_eq!(world.netd.vnet_json(["list"]), serde_json::json!([]));
}
