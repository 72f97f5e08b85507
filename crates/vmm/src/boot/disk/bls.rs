//! Boot loader entries in files of their own (the Boot Loader Specification, type 1), as Fedora's
//! kin and systemd-boot have them.

use std::cmp::Ordering;

use super::{Boot, Entry};

const ENTRIES: &str = "/loader/entries";

/// The entry that the boot loader would choose: what grubenv has saved, or else the newest.
pub(super) fn default_entry(boot: &Boot) -> Option<Entry> {
    let directory = format!("{}{ENTRIES}", boot.prefix);
    let mut names: Vec<String> = boot
        .fs
        .read_dir(&*directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name().as_str().ok()?.to_owned()))
        .filter_map(|name| name.strip_suffix(".conf").map(str::to_owned))
        .collect();
    names.sort_by(|a, b| newest_first(a, b));
    let environment = boot.environment();
    let value = |key: &str| {
        environment.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    };
    let saved = value("saved_entry").filter(|saved| names.iter().any(|name| name == saved));
    let name = saved.map(str::to_owned).or_else(|| names.into_iter().next())?;
    let text = boot.text(&format!("{ENTRIES}/{name}.conf"))?;
    parse(&text, &name, value("kernelopts").unwrap_or_default())
}

/// Rescue kernels last, otherwise the higher version first.
fn newest_first(a: &str, b: &str) -> Ordering {
    let is_rescue = |name: &str| name.contains("rescue");
    is_rescue(a).cmp(&is_rescue(b)).then_with(|| compare_versions(b, a))
}

/// As people read versions: runs of digits by their value.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let mut parts: Vec<(u64, String)> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number = rest[..digits].parse().unwrap_or(0);
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            parts.push((number, rest[..end].to_owned()));
            rest = &rest[end..];
        }
        parts
    };
    parts(a).cmp(&parts(b))
}

fn parse(text: &str, name: &str, kernel_options: &str) -> Option<Entry> {
    let mut entry = Entry { title: name.to_owned(), ..Entry::default() };
    let mut options: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        let Some((key, value)) = line.split_once(char::is_whitespace) else { continue };
        let value = value.trim();
        match key {
            "title" => value.clone_into(&mut entry.title),
            "linux" => value.clone_into(&mut entry.kernel),
            // Several may stand on one line; $tuned_initrd and the like are the boot loader's.
            "initrd" => entry.initrds.extend(
                value.split_whitespace().filter(|file| !file.contains('$')).map(str::to_owned),
            ),
            "options" => options.push(value.replace("$kernelopts", kernel_options)),
            _ => {}
        }
    }
    let words = options.iter().flat_map(|line| line.split_whitespace());
    entry.options = words.filter(|word| !word.contains('$')).collect::<Vec<_>>().join(" ");
    (!entry.kernel.is_empty()).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_and_the_boot_loaders_variables_are_resolved_or_left_out() {
        let text = "title Fedora Linux (6.11.4)\nversion 6.11.4\nlinux /vmlinuz-6.11.4\n\
                    initrd /initramfs-6.11.4.img $tuned_initrd\noptions $kernelopts $tuned_params \
                    console=ttyS0\ngrub_users $grub_users\n";
        let entry = parse(text, "x", "root=UUID=1 ro").unwrap();
        assert_eq!(entry.kernel, "/vmlinuz-6.11.4");
        assert_eq!(entry.initrds, ["/initramfs-6.11.4.img"]);
        assert_eq!(entry.options, "root=UUID=1 ro console=ttyS0");
    }

    #[test]
    fn the_newest_version_comes_first_and_rescue_last() {
        let mut names = ["m-6.9.1", "m-0-rescue", "m-6.11.4", "m-6.11.10"];
        names.sort_by(|a, b| newest_first(a, b));
        assert_eq!(names, ["m-6.11.10", "m-6.11.4", "m-6.9.1", "m-0-rescue"]);
    }
}
