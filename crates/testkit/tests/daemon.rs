//! The handle of a daemon, tried with a stand-in: a shell script that keeps netd's contract.
// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Set in the child that sees the stand-ins instead of the real programs.
const INSIDE: &str = "VNET_TESTKIT_INSIDE";

fn script(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs one test of this file again, with the stand-ins in VNET_BIN_DIR. (A variable of one's own
/// process cannot be set safely while other threads run.)
fn with_stand_ins(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let dir = tempfile::tempdir().unwrap();
    script(
        dir.path(),
        "netd",
        "[ \"$1\" = --root ] || exit 2
         [ -e \"$2/broken\" ] && { echo 'netd: the store is broken' >&2; exit 1; }
         trap 'exit 7' TERM
         echo starting >&2; echo 'netd is ready' >&2
         while :; do read -r line < \"$2/wait\"; done",
    );
    script(
        dir.path(),
        "vnet",
        "case \"$1\" in
           fail) echo 'no such network' >&2; exit 1;;
           *) printf '{\"root\":\"%s\",\"args\":\"%s\"}' \"$VNET_ROOT\" \"$*\";;
         esac",
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env("VNET_BIN_DIR", dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_daemon_starts_answers_and_ends_as_asked() {
    with_stand_ins("a_daemon_starts_answers_and_ends_as_asked", || {
        let ns = vnet_testkit::Netns::new();
        let root = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&root.path().join("wait"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let netd = vnet_testkit::Netd::start(&ns, root.path());
        assert_eq!(netd.log(), "starting\nnetd is ready");
        let answer = netd.vnet_json(["list", "all"]);
        assert_eq!(answer["root"], root.path().to_str().unwrap());
        assert_eq!(answer["args"], "list all --json");
        assert_eq!(netd.vnet_fails(["fail"]), (1, "no such network\n".to_owned()));
        assert_eq!(netd.terminate().code(), Some(7));

        let netd = vnet_testkit::Netd::start(&ns, root.path());
        let pid = netd.pid();
        assert!(netd.kill9().ends_with("netd is ready"));
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    });
}

#[test]
fn a_daemon_that_cannot_start_shows_its_log() {
    with_stand_ins("a_daemon_that_cannot_start_shows_its_log", || {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("broken"), "").unwrap();
        let started = vnet_testkit::Netd::try_start(&vnet_testkit::Netns::new(), root.path());
        let error = format!("{:#}", started.unwrap_err());
        assert!(error.contains("netd: the store is broken"), "{error}");
    });
}
