//! `vnet edit` with editors that are scripts, and `vnet reserve`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use vnet_testkit::{HostState, binary, output_within};

use crate::World;

const PATIENCE: Duration = Duration::from_secs(30);

impl World {
    /// A world with the network `default`, whose definition has a comment.
    fn with_default() -> Self {
        let world = Self::new();
        world.netd.vnet_ok(["create", "nat", "default", "--mtu", "1500"]);
        let text = format!("# mine\n{}", world.definition());
        fs::write(world.path(), text).unwrap();
        world
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("etc/vnet/networks/default.toml")
    }

    fn definition(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// Where the files that are edited are made.
    fn kept(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.root.path()).unwrap().flatten().map(|file| file.path());
        files.filter(|path| path.extension() == Some(OsStr::new("toml"))).collect()
    }

    /// An editor that runs `script` with the file in `$1`.
    fn editor(&self, script: &str) -> PathBuf {
        let path = self.root.path().join("editor");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.netd.ns().command(program);
        command.env("VNET_ROOT", self.root.path()).env("TMPDIR", self.root.path());
        command.env_remove("VISUAL");
        command
    }

    /// `vnet edit default`, in an editor that is this script.
    fn edit(&self, script: &str, options: &[&str]) -> Output {
        let mut command = self.command(binary("vnet"));
        command.args(["edit", "default"]).args(options).env("EDITOR", self.editor(script));
        output_within(&mut command, PATIENCE).unwrap()
    }
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_the_editor_leaves_is_the_definition() {
    let world = World::with_default();
    let before = world.definition();
    let output = world.edit("sed -i 's/mtu = 1500/mtu = 1400 # for the tunnel/' \"$1\"", &[]);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        stdout,
        "network default is up: nat 192.168.122.0/24, gateway 192.168.122.1, bridge virbr0\n"
    );
    assert_eq!(world.definition(), before.replace("mtu = 1500", "mtu = 1400 # for the tunnel"));
    assert!(world.netd.ns().ip("link show virbr0").contains("mtu 1400"));
    assert_eq!(world.kept(), <[PathBuf; 0]>::default());
    let (stdout, _) = said(&world.edit("true", &[]));
    assert_eq!(stdout, "network default is unchanged\n");
    assert_eq!(world.kept(), <[PathBuf; 0]>::default());
}

#[test]
fn an_editor_may_have_arguments_and_visual_goes_first() {
    let world = World::with_default();
    let editor = world.editor("test \"$1\" = --wait && sed -i 's/mtu = 1500/mtu = 1400/' \"$2\"");
    let mut command = world.command(binary("vnet"));
    command.args(["edit", "default"]).env("EDITOR", "false");
    command.env("VISUAL", format!("{} --wait", editor.display()));
    let output = output_within(&mut command, PATIENCE).unwrap();
    assert!(output.status.success(), "{:?}", said(&output));
    assert!(world.definition().contains("mtu = 1400"));
}

#[test]
fn a_text_that_is_refused_is_kept_and_named() {
    let world = World::with_default();
    let (before, host) = (world.definition(), HostState::of(world.netd.ns()));
    let output = world.edit("sed -i 's/mtu = 1500/mtu = 99/' \"$1\"", &[]);
    let (_, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("line 7, column 7: an MTU of 99 bytes is not possible"), "{stderr}");
    let [kept] = &world.kept()[..] else { panic!("{:?}", world.kept()) };
    let again = format!("`vnet edit default --file {}` applies it", kept.display());
    assert!(stderr.contains(&again), "{stderr}");
    assert_eq!(fs::read_to_string(kept).unwrap(), before.replace("1500", "99"));
    assert_eq!(world.definition(), before);
    host.assert_same(&HostState::of(world.netd.ns()));
}

#[test]
fn an_editor_that_fails_changes_nothing() {
    let world = World::with_default();
    let before = world.definition();
    let output = world.edit("echo garbage >> \"$1\"; exit 7", &[]);
    let (_, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("exit status: 7") && stderr.contains("set EDITOR"), "{stderr}");
    assert_eq!(world.definition(), before);
    assert_eq!(world.kept().len(), 1, "what was written is not lost");
}

#[test]
fn a_dry_run_prints_the_plan_and_keeps_the_text() {
    let world = World::with_default();
    let before = world.definition();
    let output = world.edit("sed -i 's/mtu = 1500/mtu = 1400/' \"$1\"", &["--dry-run"]);
    let (stdout, stderr) = said(&output);
    assert!(stdout.contains("2. set virbr0 mtu 1400\n"), "{stdout}");
    assert!(stderr.contains("your text is kept in"), "{stderr}");
    assert_eq!(world.definition(), before);
    let kept = world.kept().remove(0);
    world.netd.vnet_ok([
        OsStr::new("edit"),
        OsStr::new("default"),
        OsStr::new("--file"),
        kept.as_os_str(),
    ]);
    assert_eq!(world.definition(), before.replace("1500", "1400"));
}

#[test]
fn programs_give_the_text_on_standard_input() {
    let world = World::with_default();
    let text = world.definition().replace("mtu = 1500", "mtu = 1400");
    let mut command = world.command(binary("vnet"));
    command.args(["edit", "default", "--file", "-", "--json"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let changed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(changed["network"]["definition"]["mtu"], 1400);
    assert_eq!(changed["plan"][1], "set virbr0 mtu 1400");
    assert_eq!(world.definition(), text);
}

/// On a terminal, which util-linux's script makes, with these answers.
fn on_a_terminal(world: &World, script: &str, answers: &str) -> String {
    let input = world.root.path().join("answers");
    fs::write(&input, answers).unwrap();
    let vnet = format!("{} edit default", binary("vnet").display());
    let mut command = world.command("script");
    command.args(["--quiet", "--return", "--command", &vnet, "/dev/null"]);
    command.env("EDITOR", world.editor(script)).env("SHELL", "/bin/sh");
    command.stdin(fs::File::open(input).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    said(&output).0
}

#[test]
fn on_a_terminal_one_can_edit_again_and_nothing_is_lost() {
    let world = World::with_default();
    // The first time, the editor writes nonsense; the second time, it mends that.
    let script = "grep -q 'mtu = 99' \"$1\" && sed -i 's/mtu = 99/mtu = 1400/' \"$1\" && exit\n\
                  sed -i 's/mtu = 1500/mtu = 99/' \"$1\"";
    let terminal = on_a_terminal(&world, script, "what\ny\n");
    assert!(terminal.contains("vnet: line 7, column 7: an MTU of 99"), "{terminal}");
    assert_eq!(terminal.matches("Edit again? [Y/n]").count(), 2, "{terminal}");
    assert!(terminal.contains("network default is up"), "{terminal}");
    assert!(world.definition().contains("mtu = 1400"));
    assert_eq!(world.kept(), <[PathBuf; 0]>::default());

    let terminal = on_a_terminal(&world, "sed -i 's/mtu = 1400/mtu = 99/' \"$1\"", "n\n");
    assert!(terminal.contains("your text is kept in"), "{terminal}");
    assert!(world.definition().contains("mtu = 1400"));
    assert_eq!(world.kept().len(), 1);
}

#[test]
fn an_address_is_reserved_and_free_again() {
    let world = World::with_default();
    let before = world.definition();
    let reserve = "reserve default --mac 52:54:00:00:00:10 --ip 192.168.122.10 --name web";
    let plan = world.netd.vnet_ok(reserve.split(' ').chain(["--dry-run"]));
    assert!(plan.contains("2. tell DHCP and DNS of default"), "{plan}");
    assert_eq!(world.definition(), before);
    assert_eq!(
        world.netd.vnet_ok(reserve.split(' ')),
        "network default keeps 192.168.122.10 for 52:54:00:00:00:10\n"
    );
    let shown = world.netd.vnet_ok(["show", "default"]);
    assert!(shown.contains("192.168.122.10") && shown.contains("web"), "{shown}");
    assert!(world.definition().starts_with(&before));
    let (code, stderr) = world
        .netd
        .vnet_fails("reserve default --mac 52:54:00:00:00:11 --ip 192.168.122.10".split(' '));
    assert!(code == 1 && stderr.contains("192.168.122.10 is reserved twice"), "{stderr}");
    let (_, stderr) =
        world.netd.vnet_fails("reserve default --mac 52:54:00:00:00:11 --ip 10.0.0.1".split(' '));
    assert!(stderr.contains("choose it within 192.168.122.2-192.168.122.254"), "{stderr}");
    assert_eq!(
        world.netd.vnet_ok(["unreserve", "default", "--mac", "52:54:00:00:00:10"]),
        "network default keeps no address for 52:54:00:00:00:10\n"
    );
    assert_eq!(world.definition(), before);
    world.netd.vnet_ok(["create", "nat", "quiet", "--no-dhcp"]);
    let (_, stderr) = world
        .netd
        .vnet_fails("reserve quiet --mac 52:54:00:00:00:11 --ip 192.168.123.10".split(' '));
    assert!(stderr.contains("has no DHCP"), "{stderr}");
}
