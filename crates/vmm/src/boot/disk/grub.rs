//! grub.cfg, as grub-mkconfig writes it: menu entries, perhaps in submenus, of which each has a
//! line for its kernel and one for its initial RAM disks.

use super::{Boot, Entry};

const FILES: [&str; 2] = ["/grub/grub.cfg", "/grub2/grub.cfg"];

/// The entry that the boot loader would choose.
pub(super) fn default_entry(boot: &Boot) -> Option<Entry> {
    let text = FILES.iter().find_map(|path| boot.text(path))?;
    let environment = boot.environment();
    let saved = environment.iter().find(|(key, _)| key == "saved_entry");
    choose(&text, saved.map(|(_, value)| value.as_str()))
}

/// An entry with the names by which it may be chosen.
struct Named {
    entry: Entry,
    id: String,
    /// Its number among the entries and submenus of the top level, if it is one of them.
    number: Option<usize>,
}

fn choose(text: &str, saved: Option<&str>) -> Option<Entry> {
    let (entries, default) = parse(text);
    let wanted = match default.as_deref() {
        Some("${saved_entry}") => saved.unwrap_or_default(),
        Some(default) => default,
        None => "0",
    };
    // `Submenu>Entry`: the last part is the entry's.
    let wanted = wanted.rsplit('>').next().unwrap_or_default();
    let is_wanted = |named: &Named| {
        named.id == wanted
            || named.entry.title == wanted
            || named.number.is_some_and(|number| wanted.parse() == Ok(number))
    };
    let at = entries.iter().position(is_wanted).unwrap_or(0);
    entries.into_iter().nth(at).map(|named| named.entry)
}

/// All entries that have a kernel, and what `set default=` says last at the top level.
fn parse(text: &str) -> (Vec<Named>, Option<String>) {
    let mut entries: Vec<Named> = Vec::new();
    let mut default = None;
    // What each open brace belongs to.
    let mut open: Vec<Block> = Vec::new();
    let mut next_number = 0;
    for line in text.lines() {
        let words = split(line.trim());
        let Some(command) = words.first().map(String::as_str) else { continue };
        match command {
            "menuentry" | "submenu" => {
                let is_top = !open.iter().any(|block| *block != Block::Other);
                let number = is_top.then_some(next_number);
                next_number += usize::from(is_top);
                if command == "menuentry" {
                    let id = words
                        .windows(2)
                        .find(|pair| pair[0] == "--id" || pair[0] == "$menuentry_id_option");
                    let title = words.get(1).cloned().unwrap_or_default();
                    let id = id.map(|pair| pair[1].clone()).unwrap_or_default();
                    let entry = Entry { title, ..Entry::default() };
                    entries.push(Named { entry, id, number });
                    open.push(Block::Entry);
                } else {
                    open.push(Block::Submenu);
                }
            }
            "}" => drop(open.pop()),
            "linux" | "linux16" | "linuxefi" if open.contains(&Block::Entry) => {
                if let Some(Named { entry, .. }) = entries.last_mut() {
                    entry.kernel = words.get(1).cloned().unwrap_or_default();
                    let options = words.iter().skip(2).filter(|word| !word.contains('$'));
                    entry.options = options.cloned().collect::<Vec<_>>().join(" ");
                }
            }
            "initrd" | "initrd16" | "initrdefi" if open.contains(&Block::Entry) => {
                if let Some(Named { entry, .. }) = entries.last_mut() {
                    let files = words.iter().skip(1).filter(|word| !word.contains('$'));
                    entry.initrds = files.cloned().collect();
                }
            }
            "set" => {
                let value = words.get(1).and_then(|word| word.strip_prefix("default="));
                // `set default="${next_entry}"` is for one start, and empty otherwise.
                if let Some(value) = value.filter(|value| *value != "${next_entry}") {
                    default = Some(value.to_owned());
                }
            }
            _ if line.trim_end().ends_with('{') => open.push(Block::Other),
            _ => {}
        }
    }
    entries.retain(|named| !named.entry.kernel.is_empty());
    (entries, default)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Entry,
    Submenu,
    /// A function.
    Other,
}

/// The words of a line, quotes taken off; a comment ends it.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(q), l) if q == l => quote = None,
            (Some('\''), l) => word.get_or_insert_default().push(l),
            (_, '\\') => word.get_or_insert_default().extend(letters.next()),
            (Some(_), l) => word.get_or_insert_default().push(l),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, l) if l.is_whitespace() => words.extend(word.take()),
            (None, l) => word.get_or_insert_default().push(l),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What grub-mkconfig writes on a cloud image, shortened.
    const DEBIAN: &str = r#"
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set boot_once=true
else
   set default="0"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    save_env saved_entry
  fi
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
        load_video
        if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
        search --no-floppy --fs-uuid --set=root 1-2
        echo    'Loading Linux 6.1.0-9-cloud-amd64 ...'
        linux   /boot/vmlinuz-6.1.0-9-cloud-amd64 root=PARTUUID=3-4 ro console=tty0 "a b" $more
        initrd  /boot/initrd.img-6.1.0-9-cloud-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {
        menuentry 'Debian, with Linux 6.1.0-8' $menuentry_id_option 'gnulinux-8-1' {
                linux   /boot/vmlinuz-6.1.0-8 root=PARTUUID=3-4 ro
                initrd  /boot/initrd.img-6.1.0-8 /boot/more.img
        }
}
menuentry 'UEFI Firmware Settings' { fwsetup
}
"#;

    #[test]
    fn the_default_entry_of_a_cloud_image_is_found() {
        let entry = choose(DEBIAN, None).unwrap();
        assert_eq!(entry.title, "Debian GNU/Linux");
        assert_eq!(entry.kernel, "/boot/vmlinuz-6.1.0-9-cloud-amd64");
        assert_eq!(entry.initrds, ["/boot/initrd.img-6.1.0-9-cloud-amd64"]);
        assert_eq!(entry.options, "root=PARTUUID=3-4 ro console=tty0 a b");
    }

    #[test]
    fn a_default_by_name_id_or_saved_is_followed_into_a_submenu() {
        for default in ["gnulinux-8-1", "gnulinux-advanced-1>gnulinux-8-1"] {
            let text = DEBIAN.replace("set default=\"0\"", &format!("set default='{default}'"));
            let entry = choose(&text, None).unwrap();
            assert_eq!(entry.initrds, ["/boot/initrd.img-6.1.0-8", "/boot/more.img"]);
        }
        let text = DEBIAN.replace("default=\"0\"", "default=\"${saved_entry}\"");
        let entry = choose(&text, Some("Debian, with Linux 6.1.0-8")).unwrap();
        assert_eq!(entry.kernel, "/boot/vmlinuz-6.1.0-8");
        assert_eq!(choose(&text, None).unwrap().title, "Debian GNU/Linux");
    }

    #[test]
    fn rubbish_has_no_entries() {
        for text in ["", "}}}}", "menuentry", "linux /x", "menuentry 'x {\nlinux", "{\n{\n{"] {
            assert_eq!(choose(text, None), None, "{text}");
        }
    }
}
