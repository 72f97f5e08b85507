//! Ways out of the jail: each is tried from within, in a process of its own, and each must end it
//! with a line that says what was tried.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as loudly as the test"
)]

mod common;

use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::thread;

use vnet_virtio::worker;
use vnet_vmm::jail::{self, EXIT_CODE, Role};

/// The variable that makes this program the prisoner: role and attempt.
const PRISONER: &str = "VNET_TEST_PRISONER";
/// What a prisoner ends with that has not been stopped.
const FREE: i32 = 99;

const ROLES: [(&str, Role); 6] = [
    ("vcpu", Role::Vcpu),
    ("monitor", Role::Monitor),
    ("net", Role::Device(worker::Role::Net)),
    ("block", Role::Device(worker::Role::Block)),
    ("console", Role::Device(worker::Role::Console)),
    ("rng", Role::Device(worker::Role::Rng)),
];

/// Attempts, each with the word that the jail's line has.
const ATTEMPTS: [(&str, &str); 9] = [
    ("open", "(open)"),
    ("fork", "(clone)"),
    ("execve", "(exec)"),
    ("inet", "(socket)"),
    ("ptrace", "(ptrace)"),
    ("kill", "(kill)"),
    ("code", "(mprotect)"),
    ("handler", "(sigaction)"),
    ("namespace", "(namespaces)"),
];

/// Tries it; comes back if that was possible.
fn attempt(what: &str) {
    // SAFETY: each call gets valid arguments; most of them don't come back.
    unsafe {
        match what {
            "open" => drop(File::open("/etc/passwd")),
            "fork" => {
                libc::syscall(libc::SYS_fork);
            }
            "execve" => {
                let arguments = [c"/bin/true".as_ptr(), std::ptr::null()];
                libc::execv(arguments[0], arguments.as_ptr());
            }
            "inet" => drop(UdpSocket::bind("127.0.0.1:0")),
            "ptrace" => {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            }
            "kill" => {
                libc::kill(libc::getpid(), 0);
            }
            "code" => {
                let page = libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC);
            }
            "handler" => {
                libc::signal(libc::SIGSYS, libc::SIG_IGN);
            }
            "namespace" => {
                libc::unshare(libc::CLONE_NEWUSER);
            }
            _ => panic!("no attempt {what}"),
        }
    }
}

/// The prisoner; nothing for the harness itself.
#[test]
fn prisoner() {
    let Ok(wish) = std::env::var(PRISONER) else { return };
    let (role, what) = wish.split_once(' ').unwrap();
    jail::enter().unwrap();
    if role == "landlock" {
        // What Landlock alone refuses, without a filter.
        std::process::exit(try_files(what));
    }
    let role = ROLES.iter().find(|(name, _)| *name == role).unwrap().1;
    let what = what.to_owned();
    let thread = thread::spawn(move || {
        jail::confine(role).unwrap();
        attempt(&what);
        // SAFETY: ends the process, without what the harness would do.
        unsafe { libc::_exit(FREE) };
    });
    thread.join().unwrap();
}

/// 0 if everything was refused.
fn try_files(port: &str) -> i32 {
    let port: u16 = port.parse().unwrap();
    let tries = [
        File::open("/etc/passwd").is_ok(),
        File::create("/tmp/vnet-test-out-of-jail").is_ok(),
        std::fs::remove_file("/etc/passwd").is_ok(),
        Command::new("/bin/true").status().is_ok(),
        TcpStream::connect(("127.0.0.1", port)).is_ok(),
        TcpListener::bind("127.0.0.1:0").is_ok(),
    ];
    tries.iter().filter(|got_out| **got_out).count() as i32
}

fn prison(wish: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["prisoner", "--exact", "--nocapture"])
        .env(PRISONER, wish)
        .output()
        .unwrap()
}

#[test]
fn every_way_out_ends_the_process_and_is_named() {
    for (role, _) in ROLES {
        for (what, word) in ATTEMPTS {
            let output = prison(&format!("{role} {what}"));
            let text = String::from_utf8_lossy(&output.stderr);
            let code = output.status.code();
            assert_eq!(code, Some(EXIT_CODE.into()), "{role} {what}: {output:?}");
            assert!(text.contains("the jail ended the machine"), "{role} {what}: {text}");
            assert!(text.contains(word), "{role} {what}: {text}");
        }
    }
}

#[test]
fn landlock_alone_keeps_files_and_sockets_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let output = prison(&format!("landlock {port}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_machines_threads_are_all_confined() {
    // A guest that goes round and round, after it has said so.
    let code = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfe];
    let kernel = common::file(&common::elf(&code));
    let mut child = common::command()
        .args(["--kernel", kernel.to_str().unwrap(), "--timeout", "20", "--cpus", "2"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let mut seen = Vec::new();
    // Each thread confines itself before it does anything; the second vCPU may just have begun.
    for _ in 0..200 {
        seen.clear();
        for task in std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap() {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let value = |key: &str| {
                let line = status.lines().find(|line| line.starts_with(key)).unwrap();
                line[key.len()..].trim().to_owned()
            };
            let caps = (value("CapEff:"), value("CapPrm:"));
            seen.push((value("Name:"), value("Seccomp:"), value("NoNewPrivs:"), caps));
        }
        if seen.iter().all(|(_, seccomp, ..)| seccomp == "2") {
            break;
        }
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let none = "0000000000000000".to_owned();
    assert!(seen.len() >= 4, "{seen:?}");
    for (name, seccomp, no_new, caps) in &seen {
        assert_eq!((seccomp.as_str(), no_new.as_str()), ("2", "1"), "{name}: {seen:?}");
        assert_eq!(caps, &(none.clone(), none.clone()), "{name}");
    }
}
