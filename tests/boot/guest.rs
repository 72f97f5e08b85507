//! The built-in guest on the network `default`, as `vnet run` starts it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use vnet_testkit::binary;
use vnet_tests::Host;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running guest; it ends with its handle.
pub(crate) struct Guest {
    vnet: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Guest {
    /// Starts the guest `name` with these words on its command line.
    pub(crate) fn start(host: &Host, name: &str, words: &str) -> Self {
        let mut vnet = host
            .ns()
            .command(binary("vnet"))
            .args(["run", "--net", "nat:default", "--name", name, "--timeout", "120"])
            .args(["--append", words])
            .env("VNET_ROOT", host.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let console = BufReader::new(vnet.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in console.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { vnet, lines, seen: Vec::new() }
    }

    /// The next line with `text` in it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no `{text}` within {PATIENCE:?}:\n{}", self.seen.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the guest ended without `{text}`:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// Kills the VMM as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.vnet.kill();
        let _ = self.vnet.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}
