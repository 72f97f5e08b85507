//! A guest of the lab: a stock kernel, the lab's RAM disk, and a script as its work.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{env, thread};

use serde_json::Value;
use tempfile::TempDir;
use vnet_testkit::{Netns, binary, wait_within};
use vnet_tests::Host;

/// What a guest may take: the VMM's own limit, and ours beyond it, should the VMM itself hang.
const LIMIT_SECONDS: u32 = 90;
const PATIENCE: Duration = Duration::from_secs(LIMIT_SECONDS as u64 + 20);
/// After so long, it probably hangs.
const SUSPICION: Duration = Duration::from_secs(LIMIT_SECONDS as u64 - 10);

/// Which file of the kernel is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// As the distribution ships it.
    BzImage,
    /// The ELF file within.
    Elf,
}

/// A file of the lab.
pub(crate) fn lab(name: &str) -> PathBuf {
    let directory = env::var_os("VNET_LAB").expect("scripts/lab runs these tests");
    Path::new(&directory).join(name)
}

/// A machine that is to be.
pub(crate) struct Machine {
    directory: TempDir,
    kernel: Kernel,
    arguments: Vec<String>,
    append: String,
    name: String,
    /// Where the VMM runs, and under which root netd's sockets are.
    host: Option<(Netns, PathBuf)>,
}

impl Machine {
    /// A machine of one processor and 256 MiB. Its console's log is named after it.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            kernel: Kernel::BzImage,
            arguments: Vec::new(),
            append: "console=ttyS0 quiet panic=-1".to_owned(),
            name: name.to_owned(),
            host: None,
        }
    }

    /// On this host's networks.
    pub(crate) fn on(mut self, host: &Host) -> Self {
        self.host = Some((host.ns().clone(), host.root.path().to_owned()));
        self
    }

    pub(crate) fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// More on the kernel's command line.
    pub(crate) fn append(mut self, words: &str) -> Self {
        write!(self.append, " {words}").unwrap();
        self
    }

    /// More arguments for the VMM.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&word| word.to_owned()));
        self
    }

    /// A machine that boots its first disk.
    pub(crate) fn from_disk(name: &str) -> Self {
        Self { append: "added=1".to_owned(), ..Self::new(name) }
    }

    /// The lab's RAM disk, with a shell script as its work.
    pub(crate) fn initrd(work: &str) -> Vec<u8> {
        let mut initrd = fs::read(lab("guest.cpio")).unwrap();
        // The kernel unpacks archives one after the other; each begins at a multiple of 4.
        initrd.resize(initrd.len().next_multiple_of(4), 0);
        initrd.extend(cpio("work", work.as_bytes()));
        initrd
    }

    /// Starts the machine with a shell script as its work.
    pub(crate) fn start(self, work: &str) -> Running {
        let initrd = self.directory.path().join("initrd");
        fs::write(&initrd, Self::initrd(work)).unwrap();
        let kernel = lab(match self.kernel {
            Kernel::BzImage => "vmlinuz",
            Kernel::Elf => "vmlinux",
        });
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (kernel, initrd) = (text(kernel), text(initrd));
        self.with(&["--kernel", &kernel, "--initrd", &initrd]).spawn()
    }

    /// Runs a machine that needs nothing else to its end.
    pub(crate) fn run_as_it_is(self) -> Ended {
        self.spawn().end()
    }

    fn spawn(self) -> Running {
        let path = |name: &str| self.directory.path().join(name);
        let errors = File::create(path("errors")).unwrap();
        let mut command = match &self.host {
            Some((ns, root)) => {
                let mut command = ns.command(binary("vnet-vmm"));
                command.arg("--root").arg(root).args(["--name", &self.name]);
                command
            }
            None => Command::new(binary("vnet-vmm")),
        };
        command
            .args(["--append", &self.append, "--timeout", &LIMIT_SECONDS.to_string()])
            .arg("--report")
            .arg(path("report"));
        if !self.arguments.iter().any(|argument| argument == "--memory") {
            command.args(["--memory", "256"]);
        }
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().unwrap();
        let console = Arc::new(Console::default());
        console.follow(child.stdout.take().unwrap());
        let input = child.stdin.take();
        Running { directory: self.directory, child, input, console, name: self.name }
    }

    /// Runs the machine to its end.
    pub(crate) fn run(self, work: &str) -> Ended {
        self.start(work).end()
    }
}

/// What a machine has said on its serial port.
#[derive(Default)]
struct Console {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Console {
    /// Collects all of `output`, in a thread of its own.
    fn follow(self: &Arc<Self>, mut output: impl std::io::Read + Send + 'static) {
        let console = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = output.read(&mut buffer).unwrap_or(0);
                let mut said = console.said.lock().unwrap();
                said.bytes.extend(&buffer[..count]);
                said.is_over = count == 0;
                console.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
    }

    fn text(said: &Said) -> String {
        String::from_utf8_lossy(&said.bytes).replace('\r', "")
    }

    /// Waits until it has `text`, is over, or patience is.
    fn wait_for(&self, text: &str) -> bool {
        let said = self.said.lock().unwrap();
        let goes_on = |said: &mut Said| !said.is_over && !Self::text(said).contains(text);
        let (said, _) = self.changed.wait_timeout_while(said, PATIENCE, goes_on).unwrap();
        Self::text(&said).contains(text)
    }
}

/// A machine that runs; it ends with its handle.
pub(crate) struct Running {
    directory: TempDir,
    child: Child,
    input: Option<ChildStdin>,
    console: Arc<Console>,
    name: String,
}

impl Running {
    /// What it has said so far.
    pub(crate) fn console(&self) -> String {
        Console::text(&self.console.said.lock().unwrap())
    }

    /// Types `text` at its serial port.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.directory.path().join("errors")).unwrap_or_default()
    }

    /// The VMM's process.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits until it has said `text`.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        let name = &self.name;
        assert!(
            self.console.wait_for(text),
            "{name} HANGS, or ended, without `{text}`: {}\n{}",
            self.errors(),
            self.console()
        );
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let mut status = wait_within(&mut self.child, SUSPICION).unwrap();
        if status.is_none() {
            self.keep_threads();
            status = wait_within(&mut self.child, PATIENCE - SUSPICION).unwrap();
        }
        let goes_on = |said: &mut Said| !said.is_over;
        drop(self.console.changed.wait_timeout_while(
            self.console.said.lock().unwrap(),
            PATIENCE,
            goes_on,
        ));
        let (console, errors) = (self.console(), self.errors());
        self.keep_log(&console, &errors);
        let Some(status) = status else {
            panic!("{} HANGS, and so does its VMM: {errors}\n{console}", self.name)
        };
        let report = fs::read_to_string(self.directory.path().join("report")).unwrap_or_default();
        let report = serde_json::from_str(&report).unwrap_or(Value::Null);
        Ended { console, errors, status, report }
    }

    /// Kills the VMM as `kill -9` does: the guest's power is gone.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let console = self.console();
        self.keep_log(&console, &self.errors());
        console
    }

    /// What the VMM's threads do, and which events wait to be read: for whoever looks into a hang.
    fn keep_threads(&self) {
        let mut text = String::new();
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let entries = |name: &str| {
            fs::read_dir(process.join(name)).into_iter().flatten().flatten().map(|e| e.path())
        };
        for task in entries("task") {
            let [name, call, stack] =
                ["comm", "syscall", "stack"].map(|name| read(task.join(name)));
            writeln!(text, "== {name}: {call}\n{stack}").unwrap();
        }
        for info in entries("fdinfo") {
            writeln!(text, "-- {}: {}", info.display(), read(info.clone())).unwrap();
        }
        // As with the console's log.
        let _ = fs::write(format!("/tmp/logs/{}.threads", self.name), text);
    }

    /// Best effort: a log that cannot be kept fails no test.
    fn keep_log(&self, console: &str, errors: &str) {
        let path = Path::new("/tmp/logs").join(format!("{}.log", self.name));
        if let Ok(mut file) = File::create(path) {
            let _ = write!(file, "{console}\n== the VMM ==\n{errors}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a machine ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it said.
    pub(crate) console: String,
    /// What the VMM said.
    pub(crate) errors: String,
    /// The VMM's end.
    pub(crate) status: ExitStatus,
    /// The VMM's report.
    pub(crate) report: Value,
}

impl Ended {
    /// The end of a guest that has switched itself off.
    #[track_caller]
    pub(crate) fn well(self) -> Self {
        assert_eq!(self.report["outcome"], "power_off", "{self}");
        self
    }

    /// Asserts that the console has `text`.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.console.contains(text), "no `{text}`: {self}");
        self
    }

    /// What stands behind `word` and a space, up to the end of the line.
    #[track_caller]
    pub(crate) fn value(&self, word: &str) -> &str {
        let line = |line: &'_ str| line.strip_prefix(word).is_some_and(|r| r.starts_with(' '));
        let found = self.console.lines().find(|text| line(text));
        found.unwrap_or_else(|| panic!("no line `{word} …`: {self}"))[word.len() + 1..].trim()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}\n{}\n{}", self.status, self.report, self.errors, self.console)
    }
}

/// One file as a cpio archive (the "newc" format), with its end.
fn cpio(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in [(name, content), ("TRAILER!!!", &[][..])] {
        archive.extend(b"070701");
        // Inode, mode, user, group, links, time, size, device (4), length of the name, checksum.
        let (size, length) = (content.len(), name.len() + 1);
        for field in [1, 0o100_755, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0] {
            archive.extend(format!("{field:08x}").bytes());
        }
        archive.extend(name.bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}
