//! The definitions on disk: what a person wants, and may edit with any editor.

mod read;

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vnet_api::paths::Paths;
use vnet_types::{BridgedDefinition, Forward, Listen, NetworkDefinition, NetworkName};

use crate::definition;

pub(crate) use read::{Definitions, Reader};

/// Why the definitions cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A directory or a file.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A value that TOML cannot hold.
    #[error("cannot write the definition of {name} as TOML")]
    Encode {
        /// The network.
        name: NetworkName,
        /// Why not.
        #[source]
        source: toml::ser::Error,
    },
    /// A file that was valid when it was read, and isn't now.
    #[error("{path}: {reason}")]
    Broken {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A new definition that netd, should it be killed, would find, but the host, should it lose
/// power, perhaps not: until it is flushed.
#[must_use = "the definition is to be flushed before anybody is told of it"]
pub(crate) struct Unflushed {
    path: PathBuf,
    file: File,
}

/// A definition as netd writes it where no person did.
pub(crate) fn encode(network: &NetworkDefinition) -> Result<String, StoreError> {
    toml::to_string(network)
        .map_err(|source| StoreError::Encode { name: network.name.clone(), source })
}

/// Writes the definition of a new network.
pub(crate) fn write(paths: &Paths, network: &NetworkDefinition) -> Result<Unflushed, StoreError> {
    let text = encode(network)?;
    let path = paths.network(&network.name);
    let file = write_beside(&path, text.as_bytes())?;
    Ok(Unflushed { path, file })
}

/// Writes the definition of a bridged network, to stable storage.
pub(crate) fn write_bridged(paths: &Paths, network: &BridgedDefinition) -> Result<(), StoreError> {
    let text = toml::to_string(network)
        .map_err(|source| StoreError::Encode { name: network.name.clone(), source })?;
    let path = paths.network(&network.name);
    let file = write_beside(&path, text.as_bytes())?;
    file.sync_data().map_err(|source| io_error("flush", &path, source))?;
    sync_directory(&path)
}

/// Makes a file of somebody else's, under the root, hold `text`, or takes it away.
/// A new one gets these permissions.
pub(crate) fn put(path: &Path, text: Option<&str>, mode: u32) -> Result<(), StoreError> {
    match text {
        Some(text) if path.exists() => replace(path, text.as_bytes()),
        Some(text) => {
            let file = write_beside_as(path, text.as_bytes(), Some(mode))?;
            file.sync_data().map_err(|source| io_error("flush", path, source))?;
            sync_directory(path)
        }
        None => match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(io_error("remove", path, source)),
            Ok(()) => sync_directory(path),
        },
    }
}

impl Unflushed {
    /// Starts to bring the definition to stable storage; the task ends when it is there.
    pub(crate) fn flush(self) -> tokio::task::JoinHandle<Result<(), StoreError>> {
        tokio::task::spawn_blocking(move || {
            let Self { path, file } = self;
            file.sync_data().map_err(|source| io_error("flush", &path, source))?;
            sync_directory(&path)
        })
    }
}

/// A definition as it was before a change.
#[derive(Debug)]
pub(crate) struct Before {
    path: PathBuf,
    text: String,
}

impl Before {
    /// Undoes the change.
    pub(crate) fn put_back(self) -> Result<(), StoreError> {
        replace(&self.path, self.text.as_bytes())
    }
}

/// Adds a forward to a definition and leaves all else in the file as a person wrote it.
pub(crate) fn add_forward(
    paths: &Paths,
    name: &NetworkName,
    forward: &Forward,
) -> Result<Before, StoreError> {
    use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, Value};
    edit(paths, name, |document, _| {
        let mut pairs: Vec<(&str, Value)> = vec![("protocol", forward.protocol.as_str().into())];
        pairs.extend(forward.address.map(|address| ("address", address.to_string().into())));
        let ports = forward.port;
        let port = match ports.count() {
            1 => Value::from(i64::from(ports.first())),
            _ => Value::from(ports.to_string()),
        };
        pairs.extend([("port", port), ("target", forward.target.to_string().into())]);
        // A person may have written them in one line.
        if let Some(Item::Value(Value::Array(array))) = document.get_mut("forwards") {
            let array: &mut Array = array;
            array.push(pairs.into_iter().collect::<InlineTable>());
            return;
        }
        let tables = document["forwards"].or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(tables) = tables.as_array_of_tables_mut() {
            tables.push(pairs.into_iter().collect::<Table>());
        }
    })
}

/// Removes the forwards that listen exactly there, and what a person wrote about them.
pub(crate) fn remove_forward(
    paths: &Paths,
    name: &NetworkName,
    listen: &Listen,
) -> Result<Before, StoreError> {
    use toml_edit::{Item, Value};
    edit(paths, name, |document, network| {
        let gone = network.forwards.iter().enumerate().rev();
        let gone = gone.filter(|(_, forward)| forward.listen() == *listen).map(|(place, _)| place);
        for place in gone {
            match document.get_mut("forwards") {
                Some(Item::ArrayOfTables(tables)) => drop(tables.remove(place)),
                Some(Item::Value(Value::Array(array))) => drop(array.remove(place)),
                _ => {}
            }
        }
    })
}

/// Changes a definition, and refuses where it cannot be used afterwards.
fn edit(
    paths: &Paths,
    name: &NetworkName,
    change: impl FnOnce(&mut toml_edit::DocumentMut, &NetworkDefinition),
) -> Result<Before, StoreError> {
    let path = paths.network(name);
    let broken = |reason| StoreError::Broken { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(&path).map_err(|source| io_error("read", &path, source))?;
    let network = definition::parse(&text).map_err(broken)?;
    let mut document: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| broken(error.to_string()))?;
    change(&mut document, &network);
    let changed = document.to_string();
    definition::parse(&changed).map_err(broken)?;
    replace(&path, changed.as_bytes())?;
    Ok(Before { path, text })
}

/// A definition as it stands on disk; none where there is no file.
pub(crate) fn read_text(paths: &Paths, name: &NetworkName) -> Result<Option<String>, StoreError> {
    let path = paths.network(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("read", &path, source)),
    }
}

/// A changed definition on stable storage beside the one that counts, which it is to replace.
/// Dropped without [`Prepared::commit`], it is gone.
#[must_use = "a definition that is not committed does not count"]
pub(crate) struct Prepared {
    new: PathBuf,
    path: PathBuf,
}

/// Writes `text` beside the definition of `name`, where a symbolic link leads, if it is one, and
/// with its mode.
pub(crate) fn prepare(
    paths: &Paths,
    name: &NetworkName,
    text: &str,
) -> Result<Prepared, StoreError> {
    let path = paths.network(name);
    let error = |source| io_error("write", &path, source);
    let (path, permissions) = match path.canonicalize() {
        Ok(target) => {
            let permissions = std::fs::metadata(&target).map_err(error)?.permissions();
            (target, Some(permissions))
        }
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => (path.clone(), None),
        Err(source) => return Err(error(source)),
    };
    let prepared = Prepared { new: path.with_extension("toml.new"), path };
    let write = || {
        let mut file = File::create(&prepared.new)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| io_error("write", &prepared.new, source))?;
    Ok(prepared)
}

impl Prepared {
    /// Puts it in the place of the one that counted until now, in one step.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        std::fs::rename(&self.new, &self.path)
            .map_err(|source| io_error("replace", &self.path, source))?;
        sync_directory(&self.path)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // After a commit there is none.
        let _ = std::fs::remove_file(&self.new);
    }
}

/// Changes one key of a definition and leaves all else in the file as a person wrote it.
pub(crate) fn set_autostart(paths: &Paths, name: &NetworkName, on: bool) -> Result<(), StoreError> {
    replace(&paths.network(name), with_autostart(paths, name, on)?.as_bytes())
}

/// The text of a definition with another value of that key.
pub(crate) fn with_autostart(
    paths: &Paths,
    name: &NetworkName,
    on: bool,
) -> Result<String, StoreError> {
    let path = paths.network(name);
    let text = std::fs::read_to_string(&path).map_err(|source| io_error("read", &path, source))?;
    let mut document: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| StoreError::Broken {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
    match document.get_mut("autostart").and_then(toml_edit::Item::as_value_mut) {
        Some(value) => {
            let decor = value.decor().clone();
            *value = on.into();
            *value.decor_mut() = decor;
        }
        None => document["autostart"] = toml_edit::value(on),
    }
    Ok(document.to_string())
}

/// Removes a definition. One that is gone already is no error.
pub(crate) fn remove(paths: &Paths, name: &NetworkName) -> Result<(), StoreError> {
    let path = paths.network(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_error("remove", &path, source)),
        Ok(()) => sync_directory(&path),
    }
}

/// Replaces a file by `bytes`: a crash leaves the old one or the new one, whole. It stays where a
/// symbolic link leads, and keeps its mode.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let error = |source| io_error("write", path, source);
    let target = path.canonicalize().map_err(error)?;
    let permissions = std::fs::metadata(&target).map_err(error)?.permissions();
    let new = target.with_extension("toml.new");
    let write = || {
        let mut file = File::create(&new)?;
        file.set_permissions(permissions)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&new, &target)
    };
    clean_up(write(), &new).map_err(error)?;
    sync_directory(&target)
}

/// Leaves no half-written file behind.
fn clean_up<T>(result: io::Result<T>, new: &Path) -> io::Result<T> {
    if result.is_err() {
        // It may not even have been made.
        let _ = std::fs::remove_file(new);
    }
    result
}

/// Writes a file that is not there yet; it appears whole.
fn write_beside(path: &Path, bytes: &[u8]) -> Result<File, StoreError> {
    write_beside_as(path, bytes, None)
}

/// The same, with these permissions from the beginning.
fn write_beside_as(path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<File, StoreError> {
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory)
        .map_err(|source| io_error("make the directory", directory, source))?;
    let new = path.with_extension("toml.new");
    let write = || {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(mode.unwrap_or(0o666));
        let mut file = options.open(&new)?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.write_all(bytes)?;
        std::fs::rename(&new, path)?;
        Ok(file)
    };
    clean_up(write(), &new).map_err(|source| io_error("write", path, source))
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| io_error("flush the directory", directory, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(paths: &Paths) -> Result<Definitions, StoreError> {
        Reader::default().read(paths)
    }

    const DEFAULT: &str = r#"# the network of all guests
name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"
autostart = true # at boot

[dhcp]
range = "192.168.122.2-192.168.122.254"
"#;

    fn with_file(name: &str, text: &str) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.networks()).unwrap();
        std::fs::write(paths.networks().join(name), text).unwrap();
        (root, paths)
    }

    fn reason(name: &str, text: &str) -> String {
        let (_root, paths) = with_file(name, text);
        let Definitions { networks, mut broken, .. } = read_all(&paths).unwrap();
        assert!(networks.is_empty());
        broken.pop().unwrap().reason
    }

    #[test]
    fn what_is_written_is_read() {
        let (_root, paths) = with_file("default.toml", DEFAULT);
        let Definitions { networks, broken, .. } = read_all(&paths).unwrap();
        assert_eq!(broken, []);
        let network = networks.values().next().unwrap();
        drop(write(&paths, network).unwrap());
        assert_eq!(read_all(&paths).unwrap().networks.values().next(), Some(network));
        remove(&paths, &network.name).unwrap();
        assert!(read_all(&paths).unwrap().networks.is_empty());
    }

    #[test]
    fn a_bridged_network_is_read_as_one() {
        let text = "name = \"br0\"\nmode = \"bridged\"\nbridge = \"br0\"\nuplink = \"eth0\"\n";
        let (_root, paths) = with_file("br0.toml", text);
        let found = read_all(&paths).unwrap();
        let network = found.bridged.values().next().unwrap();
        assert!(network.autostart && found.networks.is_empty() && found.broken.is_empty());
        write_bridged(&paths, network).unwrap();
        assert_eq!(read_all(&paths).unwrap().bridged.values().next(), Some(network));
        let reason = reason("br0.toml", &format!("{text}subnet = \"10.0.0.0/24\"\n"));
        assert!(reason.contains("line 5") && reason.contains("subnet"), "{reason}");
    }

    #[test]
    fn comments_survive_a_change_of_autostart() {
        let (_root, paths) = with_file("default.toml", DEFAULT);
        set_autostart(&paths, &"default".parse().unwrap(), false).unwrap();
        let text = std::fs::read_to_string(paths.networks().join("default.toml")).unwrap();
        assert_eq!(text, DEFAULT.replace("autostart = true", "autostart = false"));
    }

    #[test]
    fn comments_survive_forwards_that_come_and_go() {
        let (_root, paths) = with_file("default.toml", DEFAULT);
        let name = "default".parse().unwrap();
        let text = || std::fs::read_to_string(paths.networks().join("default.toml")).unwrap();
        let forward = |listen: &str, target: &str| {
            Forward::new(listen.parse().unwrap(), target.parse().unwrap())
        };
        let web = forward("203.0.113.2:8080-8081", "web:80-81");
        add_forward(&paths, &name, &web).unwrap();
        add_forward(&paths, &name, &forward("53/udp", "db")).unwrap();
        let Definitions { networks, broken, .. } = read_all(&paths).unwrap();
        assert_eq!(broken, []);
        assert_eq!(networks[&name].forwards, [web.clone(), forward("53/udp", "db")]);
        assert!(text().starts_with(DEFAULT), "{}", text());
        let undo = remove_forward(&paths, &name, &web.listen()).unwrap();
        assert_eq!(read_all(&paths).unwrap().networks[&name].forwards, [forward("53/udp", "db")]);
        undo.put_back().unwrap();
        assert_eq!(read_all(&paths).unwrap().networks[&name].forwards.len(), 2);
        for listen in ["53/udp", "203.0.113.2:8080-8081"] {
            remove_forward(&paths, &name, &listen.parse().unwrap()).unwrap();
        }
        assert_eq!(text(), DEFAULT);
    }

    #[test]
    fn forwards_that_are_written_in_one_line_stay_so() {
        let line = "forwards = [{ port = 80, target = \"web\" }] # the shop\n";
        let (_root, paths) =
            with_file("default.toml", &DEFAULT.replace("[dhcp]", &format!("{line}\n[dhcp]")));
        let name = "default".parse().unwrap();
        let forward = Forward::new("81".parse().unwrap(), "web".parse().unwrap());
        add_forward(&paths, &name, &forward).unwrap();
        remove_forward(&paths, &name, &"80".parse().unwrap()).unwrap();
        assert_eq!(read_all(&paths).unwrap().networks[&name].forwards, [forward]);
        let text = std::fs::read_to_string(paths.networks().join("default.toml")).unwrap();
        assert!(text.contains("# the shop"), "{text}");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = reason("default.toml", &DEFAULT.replace("bridge =", "brigde ="));
        assert!(text.contains("line 4") && text.contains("brigde"), "{text}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_line_and_the_way_out() {
        let text = reason("default.toml", &DEFAULT.replace("122.0/24", "122.7/24"));
        assert!(
            text.contains("line 5") && text.contains("did you mean 192.168.122.0/24"),
            "{text}"
        );
        let text = reason("default.toml", &DEFAULT.replace("virbr0", "vir/br0"));
        assert!(text.contains("line 4") && text.contains("no interface name"), "{text}");
        let text = reason("default.toml", &DEFAULT.replace("122.254", "123.254"));
        assert!(text.contains("does not fit the subnet"), "{text}");
    }

    #[test]
    fn a_file_with_the_wrong_name_is_not_taken() {
        let text = reason("other.toml", DEFAULT);
        assert!(text.contains("call it default.toml"), "{text}");
    }

    #[test]
    fn a_broken_file_hides_no_other() {
        let (_root, paths) = with_file("default.toml", DEFAULT);
        std::fs::write(paths.networks().join("broken.toml"), "name = 1").unwrap();
        let Definitions { networks, broken, .. } = read_all(&paths).unwrap();
        assert_eq!((networks.len(), broken.len()), (1, 1));
    }
}
