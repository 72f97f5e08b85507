//! Disks that cannot be used: each is refused with its reason, before a guest runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helpers fail as loudly as the test"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::{elf, file, vmm};

/// `qemu-img create` with these arguments; the image's directory is its working directory.
fn qemu_img(directory: &Path, arguments: &[&str]) {
    let output =
        Command::new("qemu-img").arg("create").args(arguments).current_dir(directory).output();
    let output = output.expect("qemu-img is installed (the package qemu-utils)");
    assert!(output.status.success(), "{output:?}");
}

/// mov dx, 0x604; mov ax, 0x2000; out dx, ax
const POWER_OFF: [u8; 10] = [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef];

/// The exit code and the error of a guest that switches off at once, with these disks.
fn start(disks: &[&str]) -> (Option<i32>, String) {
    let kernel = file(&elf(&POWER_OFF));
    let mut arguments = vec!["--kernel", kernel.to_str().unwrap(), "--timeout", "20", "--quiet"];
    for disk in disks {
        arguments.extend(["--disk", disk]);
    }
    let output = vmm(&arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[track_caller]
fn refused(disk: &str, reason: &str) {
    let (code, error) = start(&[disk]);
    assert!(error.contains(reason), "{disk}: {reason}: {error}");
    assert_eq!((code, error.lines().count()), (Some(1), 1), "{error}");
}

#[test]
fn raw_and_qcow2_images_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    qemu_img(directory.path(), &["-q", "-f", "qcow2", "a.qcow2", "1G"]);
    qemu_img(directory.path(), &["-q", "-f", "raw", "b.img", "1M"]);
    let overlay = ["-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "c.qcow2"];
    qemu_img(directory.path(), &overlay);
    // The overlay's backing file may be read by both.
    let disks = [format!("{},ro", path("a.qcow2")), path("b.img"), path("c.qcow2")];
    let (code, error) = start(&disks.each_ref().map(String::as_str));
    assert_eq!(code, Some(0), "{error}");
}

#[test]
fn what_is_no_disk_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("empty.img"), [1; 100]).unwrap();
    fs::write(path("text.qcow2"), [b'x'; 1024]).unwrap();
    qemu_img(directory.path(), &["-q", "-f", "qcow2", "good.qcow2", "1G"]);
    fs::copy(path("good.qcow2"), path("named.img")).unwrap();
    refused("/does/not/exist.img", "cannot open the disk /does/not/exist.img");
    refused(directory.path().to_str().unwrap(), "is no disk");
    refused("/dev/null", "is no disk");
    refused(&path("empty.img"), "no whole sector");
    refused(&path("text.qcow2"), "is no qcow2 image");
    refused(&path("named.img"), "looks like a qcow2 image");
    // A disk whose guest has written such a header is a raw disk for whoever says so.
    assert_eq!(start(&[&format!("{},format=raw", path("named.img"))]).0, Some(0));
}

#[test]
fn a_disk_belongs_to_one_guest() {
    let directory = tempfile::tempdir().unwrap();
    qemu_img(directory.path(), &["-q", "-f", "raw", "b.img", "1M"]);
    let disk = directory.path().join("b.img").to_str().unwrap().to_owned();
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; and round and round.
    let kernel = file(&elf(&[0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfe]));
    let mut first = common::command()
        .args(["--kernel", kernel.to_str().unwrap(), "--disk", &disk, "--timeout", "20"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // It has its disk once its guest speaks.
    std::io::Read::read_exact(first.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let (code, error) = start(&[&format!("{disk},ro")]);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(code == Some(1) && error.contains("is in use"), "{error}");
    assert_eq!(start(&[&disk]).0, Some(0));
}

#[test]
fn an_image_makes_no_file_of_the_host_readable() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("images");
    fs::create_dir(&inner).unwrap();
    fs::write(directory.path().join("secret"), [7; 4096]).unwrap();
    let path = |name: &str| inner.join(name).to_str().unwrap().to_owned();
    qemu_img(&inner, &["-q", "-f", "qcow2", "-b", "../secret", "-F", "raw", "evil.qcow2"]);
    refused(&path("evil.qcow2"), "is not beside it");
    std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
    qemu_img(&inner, &["-q", "-f", "qcow2", "-b", "link", "-F", "raw", "sly.qcow2"]);
    refused(&path("sly.qcow2"), "is not beside it");
    assert_eq!(start(&[&format!("{},backing=anywhere", path("evil.qcow2"))]).0, Some(0));
    let data = ["-q", "-f", "qcow2", "-o", "data_file=../secret.raw", "data.qcow2", "1M"];
    qemu_img(&inner, &data);
    refused(&path("data.qcow2"), "in another file");
    // An image behind itself.
    qemu_img(&inner, &["-q", "-f", "qcow2", "one.qcow2", "1M"]);
    qemu_img(&inner, &["-q", "-f", "qcow2", "-b", "one.qcow2", "-F", "qcow2", "two.qcow2"]);
    fs::copy(path("two.qcow2"), path("one.qcow2")).unwrap();
    let bytes = fs::read(path("one.qcow2")).unwrap();
    let at = bytes.windows(9).position(|name| name == b"one.qcow2").unwrap();
    let image = OpenOptions::new().write(true).open(path("one.qcow2")).unwrap();
    image.write_all_at(b"two.qcow2", at as u64).unwrap();
    refused(&format!("{},ro", path("one.qcow2")), "stand behind each other");
}

#[test]
fn damaged_qcow2_images_are_refused_or_at_least_harmless() {
    let directory = tempfile::tempdir().unwrap();
    qemu_img(directory.path(), &["-q", "-f", "qcow2", "good.qcow2", "1G"]);
    let good = fs::read(directory.path().join("good.qcow2")).unwrap();
    let path = directory.path().join("bad.qcow2");
    let disk = path.to_str().unwrap();
    // Offsets of header fields: cluster bits, size, L1 size, L1 offset, refcount table.
    for (at, bytes) in [
        (20, &[0xff; 4][..]),
        (24, &[0xff; 8]),
        (36, &[0xff; 4]),
        (40, &[0xff; 8]),
        (40, &[0, 0, 0, 0, 0, 0, 0, 1]),
        (48, &[0xff; 8]),
    ] {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, image).unwrap();
        let (code, error) = start(&[disk]);
        assert_eq!((code, error.lines().count()), (Some(1), 1), "{at}: {error}");
        assert!(error.contains(disk), "{error}");
    }
    fs::write(&path, &good[..100]).unwrap();
    refused(disk, "cannot be used");
}

#[test]
fn a_disk_that_cannot_be_booted_says_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let boot = |disk: &str| {
        let output = vmm(&["--disk", disk, "--timeout", "20", "--quiet"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        error
    };
    qemu_img(directory.path(), &["-q", "-f", "raw", "empty.img", "1M"]);
    assert!(boot(&path("empty.img")).contains("no ext4 file system"));
    let tree = directory.path().join("tree/boot/grub");
    fs::create_dir_all(&tree).unwrap();
    let make = |name: &str| {
        qemu_img(directory.path(), &["-q", "-f", "raw", name, "4M"]);
        let root = directory.path().join("tree");
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-d"]).arg(root).arg(path(name));
        let output = mkfs.output().expect("mkfs.ext4 is installed (the package e2fsprogs)");
        assert!(output.status.success(), "{output:?}");
        path(name)
    };
    assert!(boot(&make("bare.img")).contains("no boot loader entries"));
    let entry = "menuentry 'One' {\nlinux /boot/vmlinuz root=/dev/vda\n}\n";
    fs::write(tree.join("grub.cfg"), entry).unwrap();
    let error = boot(&make("missing.img"));
    assert!(error.contains("its entry `One` needs /boot/vmlinuz"), "{error}");
    fs::write(tree.parent().unwrap().join("vmlinuz"), b"rubbish").unwrap();
    let error = boot(&make("rubbish.img"));
    assert!(error.contains("/boot/vmlinuz is no kernel"), "{error}");
}
