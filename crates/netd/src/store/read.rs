//! Reading the definitions: all of them once, and then those whose files have changed since, as
//! the kernel tells (inotify(7)).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use vnet_api::model::BrokenDefinition;
use vnet_api::paths::Paths;
use vnet_types::{BRIDGED, BridgedDefinition, NetworkDefinition, NetworkName};

use super::{StoreError, io_error};
use crate::definition;

/// All definitions that can be used, and those that cannot.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// Of networks with a subnet.
    pub(crate) networks: BTreeMap<NetworkName, Arc<NetworkDefinition>>,
    /// Of bridged networks.
    pub(crate) bridged: BTreeMap<NetworkName, BridgedDefinition>,
    /// Files that are none.
    pub(crate) broken: Vec<BrokenDefinition>,
}

/// One definition of either sort.
#[derive(Debug, Clone)]
enum Definition {
    Network(Arc<NetworkDefinition>),
    Bridged(BridgedDefinition),
}

/// What was read before.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What each file holds, or what is wrong with it.
    files: BTreeMap<PathBuf, Result<Definition, String>>,
    /// Those of them that are symbolic links: nobody tells of what is behind them.
    links: BTreeSet<PathBuf>,
    /// Tells of changes since; none if all must be read anew.
    watched: Option<Watched>,
}

/// A directory whose changes are told.
#[derive(Debug)]
struct Watched {
    inotify: Inotify,
    /// Its device and inode: another one may have taken its place.
    directory: (u64, u64),
}

impl Reader {
    /// All definitions as they are on disk. A broken one hides no other.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn read(&mut self, paths: &Paths) -> Result<Definitions, StoreError> {
        let directory = paths.networks();
        match self.watched.take().and_then(|watched| watched.changed(&directory)) {
            Some((changed, watched)) => {
                let changed = changed.into_iter().chain(std::mem::take(&mut self.links));
                changed.collect::<Vec<_>>().into_iter().for_each(|path| self.take(path));
                self.watched = Some(watched);
            }
            None => {
                // Before the first look, so that nothing that happens after it is missed.
                self.watched = Watched::new(&directory);
                self.read_all(&directory).map_err(|error| io_error("read", &directory, error))?;
            }
        }
        let mut found = Definitions::default();
        for (path, file) in &self.files {
            match file.clone() {
                Ok(Definition::Network(network)) => {
                    found.networks.insert(network.name.clone(), network);
                }
                Ok(Definition::Bridged(network)) => {
                    found.bridged.insert(network.name.clone(), network);
                }
                Err(reason) => {
                    let path = path.display().to_string();
                    found.broken.push(BrokenDefinition { path, reason });
                }
            }
        }
        Ok(found)
    }

    fn read_all(&mut self, directory: &Path) -> io::Result<()> {
        self.files.clear();
        self.links.clear();
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            self.take(entry?.path());
        }
        Ok(())
    }

    /// Reads one file anew, if it is one that may hold a definition.
    fn take(&mut self, path: PathBuf) {
        if path.extension().is_none_or(|extension| extension != "toml") {
            return;
        }
        self.files.remove(&path);
        self.links.remove(&path);
        if path.is_symlink() {
            self.links.insert(path.clone());
        }
        // A pipe, say, would be waited for.
        if path.is_file() {
            let definition = read(&path);
            self.files.insert(path, definition);
        }
    }
}

impl Watched {
    /// None where the directory is not there, or the kernel has no more of these to give: all is
    /// read each time then.
    fn new(directory: &Path) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(directory, changes | AddWatchFlags::IN_ONLYDIR).ok()?;
        Some(Self { inotify, directory: identity(directory)? })
    }

    /// The files that have changed since the last call; none if that cannot be told.
    fn changed(self, directory: &Path) -> Option<(BTreeSet<PathBuf>, Self)> {
        let mut changed = BTreeSet::new();
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        // What has no name is about the directory itself, or says that too much
                        // has happened.
                        changed.insert(directory.join(event.name?));
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
        (identity(directory)? == self.directory).then_some((changed, self))
    }
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Reads one definition, and says what is wrong with it in words.
fn read(path: &Path) -> Result<Definition, String> {
    /// What tells which sort of definition a file is; the rest is read as that sort.
    #[derive(serde::Deserialize)]
    struct Sort {
        mode: Option<toml::Value>,
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mode = toml::from_str::<Sort>(&text).ok().and_then(|sort| sort.mode);
    if mode.as_ref().and_then(toml::Value::as_str) == Some(BRIDGED) {
        let network = definition::parse_bridged(&text)?;
        check_stem(path, &network.name)?;
        return Ok(Definition::Bridged(network));
    }
    let network = definition::parse(&text)?;
    check_stem(path, &network.name)?;
    Ok(Definition::Network(Arc::new(network)))
}

fn check_stem(path: &Path, name: &NetworkName) -> Result<(), String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    if stem == Some(name.as_str()) {
        return Ok(());
    }
    Err(format!("the file is of the network {name}: call it {name}.toml, or change `name`"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn text(name: &str, third: u8) -> String {
        format!(
            "name = \"{name}\"\nmode = \"nat\"\nbridge = \"virbr{third}\"\n\
             subnet = \"10.0.{third}.0/24\"\ndomain = \"{name}.vnet\"\n"
        )
    }

    fn bridges(reader: &mut Reader, paths: &Paths) -> Vec<String> {
        let found = reader.read(paths).unwrap();
        found.networks.values().map(|network| network.bridge.to_string()).collect()
    }

    #[test]
    fn every_way_to_change_a_file_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut reader = Reader::default();
        // There is not even the directory.
        assert!(bridges(&mut reader, &paths).is_empty());
        std::fs::create_dir_all(paths.networks()).unwrap();
        let file = |name: &str| paths.networks().join(name);
        std::fs::write(file("a.toml"), text("a", 1)).unwrap();
        assert_eq!(bridges(&mut reader, &paths), ["virbr1"]);
        assert_eq!(bridges(&mut reader, &paths), ["virbr1"]);
        // Written in place, as some editors do, without another length.
        std::fs::write(file("a.toml"), text("a", 2)).unwrap();
        std::fs::write(file("b.toml"), text("b", 3)).unwrap();
        assert_eq!(bridges(&mut reader, &paths), ["virbr2", "virbr3"]);
        // Replaced, as others do.
        std::fs::write(file("b.toml~"), text("b", 4)).unwrap();
        std::fs::rename(file("b.toml~"), file("b.toml")).unwrap();
        assert_eq!(bridges(&mut reader, &paths), ["virbr2", "virbr4"]);
        std::fs::remove_file(file("a.toml")).unwrap();
        assert_eq!(bridges(&mut reader, &paths), ["virbr4"]);
        // What is behind a link changes without a notice.
        let behind = root.path().join("behind");
        std::fs::write(&behind, text("c", 5)).unwrap();
        symlink(&behind, file("c.toml")).unwrap();
        for third in [5, 6] {
            std::fs::write(&behind, text("c", third)).unwrap();
            assert_eq!(bridges(&mut reader, &paths), ["virbr4", &format!("virbr{third}")]);
        }
        // And the directory is another one.
        std::fs::rename(paths.networks(), root.path().join("before")).unwrap();
        assert!(bridges(&mut reader, &paths).is_empty());
        std::fs::create_dir(paths.networks()).unwrap();
        std::fs::write(file("d.toml"), text("d", 7)).unwrap();
        assert_eq!(bridges(&mut reader, &paths), ["virbr7"]);
        std::fs::write(file("d.toml"), "name = 1").unwrap();
        let found = reader.read(&paths).unwrap();
        assert_eq!((found.networks.len(), found.broken.len()), (0, 1));
    }
}
