//! Disks: what a stock kernel's driver sees, and what is left after an unclean kill.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::machine::Machine;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The path of an image in `directory`, as arguments want it.
fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_driver_sees_each_disk_as_it_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second, third] = ["a.img", "b.img", "c.qcow2"].map(|name| path(&directory, name));
    for image in [&first, &second] {
        File::create(image).unwrap().set_len(64 << 20).unwrap();
    }
    run("qemu-img", &["create", "-q", "-f", "qcow2", &third, "1G"]);
    let ended = Machine::new("disks")
        .with(&["--disk", &format!("{first},serial=one"), "--disk", &format!("{second},ro")])
        .with(&["--disk", &third, "--cpus", "2"])
        .run(
            "cd /sys/block
for disk in vd*; do
    echo $disk $(cat $disk/size) $(cat $disk/ro) $(ls $disk/mq | wc -l) $(cat $disk/serial)
done
echo cache $(cat vda/queue/write_cache)
echo discard $(cat vda/queue/discard_max_bytes) $(cat vdb/queue/discard_max_bytes)
echo zeroes $(cat vda/queue/write_zeroes_max_bytes)
dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>/dev/null && echo written
echo blocks $(cat vda/queue/logical_block_size) $(cat vda/queue/physical_block_size)
",
        )
        .well();
    assert_eq!(ended.value("vda"), "131072 0 2 one");
    assert_eq!(ended.value("vdb"), "131072 1 2 vnet-disk-1");
    assert_eq!(ended.value("vdc"), "2097152 0 2 vnet-disk-2");
    assert_eq!(ended.value("cache"), "write back");
    assert_eq!(ended.value("discard"), "1073741824 0");
    assert_eq!(ended.value("zeroes"), "1073741824");
    assert_eq!(ended.value("blocks"), "512 4096");
    assert!(!ended.console.contains("written"), "{ended}");
}

#[test]
fn what_a_guest_discards_shrinks_the_image() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["trim.img", "trim.qcow2"] {
        let image = path(&directory, name);
        let format = name.rsplit('.').next().unwrap().replace("img", "raw");
        run("qemu-img", &["create", "-q", "-f", &format, &image, "256M"]);
        let work = "
mkfs=/bin/busybox
dd if=/dev/urandom of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null
echo full
read line
blkdiscard /dev/vda || $mkfs blkdiscard /dev/vda
sync
echo discarded
";
        let mut machine = Machine::new(name).with(&["--disk", &image]).start(work);
        machine.wait_for("full");
        let full = blocks(&image);
        assert!(full >= 32 << 11, "{full}");
        machine.type_in("\n");
        machine.end().well().says("discarded");
        let left = blocks(&image);
        assert!(left < 4 << 11, "{name}: {left} of {full} sectors are left");
    }
}

fn blocks(image: &str) -> u64 {
    fs::metadata(image).unwrap().blocks()
}

/// Writes files until it is killed, each acknowledged once it is on the disk.
const WRITE: &str = "
mount -t ext4 /dev/vda /mnt
n=0
while true; do
    n=$((n + 1))
    dd if=/dev/urandom of=/mnt/file$n bs=64k count=4 2>/dev/null
    sync
    echo have $n $(sha256sum </mnt/file$n)
done
";

fn survives(name: &str, format: &str) {
    let directory = tempfile::tempdir().unwrap();
    let raw = path(&directory, "made.img");
    File::create(&raw).unwrap().set_len(96 << 20).unwrap();
    run("mkfs.ext4", &["-q", "-F", &raw]);
    let image = path(&directory, name);
    run("qemu-img", &["convert", "-f", "raw", "-O", format, &raw, &image]);
    let machine = Machine::new(&format!("crash-{format}")).with(&["--disk", &image]).start(WRITE);
    machine.wait_for("have 13 ");
    let console = machine.kill();
    let sums: Vec<(&str, &str)> = console
        .lines()
        // The last line may not be whole.
        .filter_map(|line| line.strip_prefix("have ")?.strip_suffix(" -")?.split_once(' '))
        .collect();
    assert!(sums.len() >= 12, "{console}");
    let mut check = "mount -t ext4 /dev/vda /mnt && echo mounted\ncd /mnt\n".to_owned();
    for (number, sum) in &sums {
        check += &format!(
            "echo '{sum}  file{number}' | sha256sum -c - >/dev/null || echo lost {number}\n"
        );
    }
    check += "cd /; umount /mnt && echo checked\n";
    let ended =
        Machine::new(&format!("after-{format}")).with(&["--disk", &image]).run(&check).well();
    ended.says("mounted").says("checked");
    assert!(!ended.console.contains("lost"), "{ended}");
    // The image's own structures, and the file system's.
    if format == "qcow2" {
        run("qemu-img", &["check", "-q", &image]);
    }
    let copy = path(&directory, "copy.img");
    run("qemu-img", &["convert", "-f", format, "-O", "raw", &image, &copy]);
    run("e2fsck", &["-f", "-n", &copy]);
    assert!(Path::new(&image).exists());
}

#[test]
fn ext4_on_a_raw_image_survives_an_unclean_kill() {
    survives("crash.img", "raw");
}

#[test]
fn ext4_on_a_qcow2_image_survives_an_unclean_kill() {
    survives("crash.qcow2", "qcow2");
}

/// Partitions, and what is where on the boot partition: a file's name, and its content.
enum Table {
    None,
    Gpt,
    Mbr,
}

/// An image with a partition that holds `files`, made as installers make theirs.
fn bootable(directory: &TempDir, table: &Table, files: &[(&str, Vec<u8>)]) -> String {
    const START: u64 = 1 << 20;
    let tree = directory.path().join("tree");
    for (name, content) in files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let partition = path(directory, "partition.img");
    File::create(&partition).unwrap().set_len(96 << 20).unwrap();
    run("mkfs.ext4", &["-q", "-F", "-d", tree.to_str().unwrap(), &partition]);
    if matches!(table, Table::None) {
        return partition;
    }
    let content = fs::read(&partition).unwrap();
    let sectors = content.len() as u64 / 512;
    let mut image = vec![0; START as usize];
    image.extend(&content);
    image.resize(image.len() + (1 << 20), 0);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    let (kind, first, count) = match table {
        Table::Mbr => (0x83, START / 512, sectors),
        _ => (0xee, 1, image.len() as u64 / 512 - 1),
    };
    image[446 + 4] = kind;
    image[446 + 8..][..4].copy_from_slice(&(first as u32).to_le_bytes());
    image[446 + 12..][..4].copy_from_slice(&(count as u32).to_le_bytes());
    if matches!(table, Table::Gpt) {
        image[512..520].copy_from_slice(b"EFI PART");
        image[512 + 72..][..8].copy_from_slice(&2_u64.to_le_bytes());
        image[512 + 80..][..4].copy_from_slice(&128_u32.to_le_bytes());
        image[512 + 84..][..4].copy_from_slice(&128_u32.to_le_bytes());
        // The second entry: type, unique id, first and last sector.
        let entry = &mut image[1024 + 128..][..128];
        entry[..16].fill(0xaf);
        entry[32..40].copy_from_slice(&(START / 512).to_le_bytes());
        entry[40..48].copy_from_slice(&(START / 512 + sectors - 1).to_le_bytes());
    }
    let disk = path(directory, "disk.img");
    fs::write(&disk, image).unwrap();
    disk
}

/// A guest from a disk says hello; `more` words go to its kernel.
fn boots(name: &str, table: &Table, files: &[(&str, &str)]) {
    let directory = tempfile::tempdir().unwrap();
    let initrd = Machine::initrd("echo from disk: $(cat /proc/cmdline)\n");
    let mut all = vec![
        ("boot/vmlinuz-1", fs::read(crate::machine::lab("vmlinuz")).unwrap()),
        ("boot/initrd.img-1", initrd),
    ];
    all.extend(files.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())));
    let disk = bootable(&directory, table, &all);
    let ended = Machine::from_disk(name).with(&["--disk", &disk]).run_as_it_is().well();
    ended.says("from disk: root=/dev/vda1 ro console=ttyS0 quiet added=1");
}

const GRUB: &str = "set default=\"0\"
menuentry 'Debian GNU/Linux' --class debian {
    linux /boot/vmlinuz-1 root=/dev/vda1 ro console=ttyS0 quiet
    initrd /boot/initrd.img-1
}
";

#[test]
fn a_disk_with_grub_boots_by_itself() {
    boots("grub-gpt", &Table::Gpt, &[("boot/grub/grub.cfg", GRUB)]);
    boots("grub-none", &Table::None, &[("boot/grub/grub.cfg", GRUB)]);
}

#[test]
fn a_disk_with_loader_entries_boots_by_itself() {
    let old = "title old\nlinux /boot/nothing\n";
    let new = "title new\nlinux /boot/vmlinuz-1\ninitrd /boot/initrd.img-1\n\
               options root=/dev/vda1 ro console=ttyS0 quiet\n";
    let entries =
        [("boot/loader/entries/a-6.1.conf", old), ("boot/loader/entries/a-6.10.conf", new)];
    boots("bls-mbr", &Table::Mbr, &entries);
}
