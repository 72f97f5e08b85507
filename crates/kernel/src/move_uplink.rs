//! The steps by which a host's own network moves between an uplink and its bridge.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use vnet_plan::uplink::{Both, Journal, LinkFacts, LinkId, Record, Request, Resolver, Step};
use vnet_types::IfName;

use crate::{Kernel, resolved, uplink};

/// Why a step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A link was not changed.
    #[error("cannot {step}")]
    Link {
        /// In words.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Part of a burst was refused.
    #[error("cannot {request}")]
    Burst {
        /// The first that was.
        request: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not say what is there.
    #[error("cannot read the host's links, addresses and routes")]
    Read(#[source] io::Error),
    /// The journal.
    #[error("cannot {action} the journal {path}")]
    Journal {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Kernel {
    /// All links, as far as it matters for an uplink.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn uplink_links(&mut self) -> Result<Vec<LinkFacts>, MoveError> {
        self.rtnetlink.links().map_err(MoveError::Read)
    }

    /// Every address, route, rule and lasting neighbour of these links.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn uplink_records(&mut self, links: &[&LinkId]) -> Result<Vec<Record>, MoveError> {
        self.rtnetlink.records(links).map_err(MoveError::Read)
    }

    /// What is on an uplink and its bridge, and whether the one is a port of the other.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn both(&mut self, uplink: &LinkId, bridge: &LinkId) -> Result<Both, MoveError> {
        let links = self.uplink_links()?;
        let port = links
            .iter()
            .any(|link| link.id.index == uplink.index && link.master == Some(bridge.index));
        Ok(Both { port, records: self.uplink_records(&[uplink, bridge])? })
    }

    /// What systemd-resolved has for a link; none where it does not serve this network namespace,
    /// or has nothing for the link.
    pub async fn resolver_of(&self, link: &IfName) -> Option<Resolver> {
        resolved::read(link).await.ok().flatten()
    }

    /// Does a step. The journals are in the folder `journals`.
    ///
    /// # Errors
    /// It did not happen; of a burst, perhaps a part.
    pub async fn step(&mut self, step: &Step, journals: &Path) -> Result<(), MoveError> {
        tracing::debug!("{step}");
        let result = self.perform_step(step, journals).await;
        #[cfg(debug_assertions)]
        crate::execute::crash_here();
        result
    }

    async fn perform_step(&mut self, step: &Step, journals: &Path) -> Result<(), MoveError> {
        let kernel = &mut self.rtnetlink;
        let link = |source| MoveError::Link { step: step.to_string(), source };
        match step {
            Step::Note(journal) => write_journal(journals, journal),
            Step::CreateBridge { name, mac } => kernel.create_bridge(name, *mac).map_err(link),
            Step::Label { link: name, text } => kernel.set_alias(name, text).map_err(link),
            Step::SetMac { link: name, mac } => kernel.set_mac(name, *mac).map_err(link),
            Step::SetMtu { link: name, mtu } => kernel.set_mtu(name, *mtu).map_err(link),
            Step::CopySettings { from, to } => {
                uplink::copy_settings(from, to);
                self.mirror.forget();
                Ok(())
            }
            Step::SetUp { link: name } => kernel.set_up(name, true).map_err(link),
            Step::SetDown { link: name } => kernel.set_up(name, false).map_err(link),
            Step::Burst(requests) => self.burst(requests),
            Step::SetResolver { link, resolver } => {
                said(step, resolved::set(link, resolver).await);
                Ok(())
            }
            Step::RevertResolver { link } => {
                said(step, resolved::revert(link).await);
                Ok(())
            }
            Step::DeleteBridge { name, .. } => kernel.delete_link(name).map_err(link),
            Step::Forget { bridge } => remove_journal(journals, bridge),
        }
    }

    fn burst(&mut self, requests: &[Request]) -> Result<(), MoveError> {
        let refused = self.rtnetlink.burst(requests).map_err(MoveError::Read)?;
        match refused.into_iter().next() {
            None => Ok(()),
            Some((at, source)) => {
                Err(MoveError::Burst { request: requests[at].to_string(), source })
            }
        }
    }

    /// Has the kernel ask whether `neighbour` is there on `link`.
    ///
    /// # Errors
    /// There is no way to ask.
    pub fn solicit(&mut self, link: &LinkId, neighbour: IpAddr) -> Result<(), MoveError> {
        self.rtnetlink.solicit(link, neighbour).map_err(MoveError::Read)
    }

    /// Whether `neighbour` has answered on `link`.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn is_reachable(&mut self, link: &LinkId, neighbour: IpAddr) -> Result<bool, MoveError> {
        self.rtnetlink.is_reachable(link, neighbour).map_err(MoveError::Read)
    }
}

/// A host whose names are not resolved for a while is better off than one whose addresses go back
/// and forth: what resolved refuses is only said.
fn said(step: &Step, result: Result<(), resolved::ResolvedError>) {
    if let Err(error) = result {
        tracing::warn!("cannot {step}: {error}");
    }
}

fn path_of(journals: &Path, bridge: &IfName) -> PathBuf {
    journals.join(format!("{bridge}.json"))
}

/// A file among the journals.
#[derive(Debug)]
pub enum FoundJournal {
    /// One that can be used.
    Whole(Box<Journal>),
    /// One that cannot: it has another name now, and hinders nobody.
    SetAside {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// All journals. Damaged ones are set aside.
///
/// # Errors
/// The folder cannot be read.
pub fn read_journals(journals: &Path) -> Result<Vec<FoundJournal>, MoveError> {
    let error = |source| journal_error("read", journals, source);
    let entries = match std::fs::read_dir(journals) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(error)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths.iter().map(|path| find(path)).collect())
}

fn find(path: &Path) -> FoundJournal {
    let reason = match read(path) {
        Ok(journal) => return FoundJournal::Whole(Box::new(journal)),
        Err(error) => error.to_string(),
    };
    let aside = path.with_extension("json.damaged");
    let path = match std::fs::rename(path, &aside) {
        Ok(()) => aside.as_path(),
        // On a disk that cannot be written, it stays where it is.
        Err(_) => path,
    };
    FoundJournal::SetAside { path: path.display().to_string(), reason }
}

/// The journal of one bridge, if there is one.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read_journal(journals: &Path, bridge: &IfName) -> Result<Option<Journal>, MoveError> {
    let path = path_of(journals, bridge);
    match read(&path) {
        Ok(journal) => Ok(Some(journal)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(journal_error("read", &path, source)),
    }
}

fn read(path: &Path) -> io::Result<Journal> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::from)
}

fn journal_error(action: &'static str, path: &Path, source: io::Error) -> MoveError {
    MoveError::Journal { action, path: path.display().to_string(), source }
}

/// On stable storage when this returns: a host that loses power after it finds it again.
fn write_journal(journals: &Path, journal: &Journal) -> Result<(), MoveError> {
    let path = path_of(journals, &journal.network.bridge);
    let write = || {
        std::fs::create_dir_all(journals)?;
        let new = path.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(journal)?)?;
        file.sync_data()?;
        std::fs::rename(new, &path)?;
        std::fs::File::open(journals)?.sync_all()
    };
    write().map_err(|source| journal_error("write", &path, source))
}

fn remove_journal(journals: &Path, bridge: &IfName) -> Result<(), MoveError> {
    let path = path_of(journals, bridge);
    let removed = match std::fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.and_then(|()| std::fs::File::open(journals)?.sync_all()),
    };
    removed.map_err(|source| journal_error("remove", &path, source))
}

#[cfg(test)]
mod tests {
    use vnet_plan::persist::FileChange;
    use vnet_plan::uplink::Phase;
    use vnet_types::{BridgedDefinition, BridgedMode};

    use super::*;

    fn journal() -> Journal {
        let network = BridgedDefinition {
            name: "lan".parse().unwrap(),
            mode: BridgedMode::Bridged,
            bridge: "br0".parse().unwrap(),
            uplink: "eth0".parse().unwrap(),
            mtu: Some(1500),
            autostart: true,
            anti_spoofing: true,
        };
        let file = FileChange {
            path: "etc/network/interfaces".to_owned(),
            before: Some("iface eth0 inet dhcp\n".to_owned()),
            after: None,
        };
        Journal {
            phase: Phase::Committed,
            network,
            boot: "b".to_owned(),
            at: 7,
            uplink: LinkId { name: "eth0".parse().unwrap(), index: 2 },
            mac: "52:54:00:00:00:09".parse().unwrap(),
            created: true,
            bridge: None,
            bridge_mac: None,
            bridge_up: false,
            bridge_mtu: None,
            on_uplink: Vec::new(),
            on_bridge: Vec::new(),
            resolver: None,
            bridge_resolver: None,
            files: vec![file],
            confirm_until: Some(40),
        }
    }

    #[test]
    fn a_journal_cut_at_any_byte_is_set_aside_and_hinders_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let other = Journal {
            network: BridgedDefinition { bridge: "br1".parse().unwrap(), ..journal().network },
            ..journal()
        };
        write_journal(folder.path(), &other).unwrap();
        write_journal(folder.path(), &journal()).unwrap();
        let path = path_of(folder.path(), &journal().network.bridge);
        let whole = std::fs::read(&path).unwrap();
        for kept in 0..whole.len() {
            std::fs::write(&path, &whole[..kept]).unwrap();
            let found = read_journals(folder.path()).unwrap();
            let [FoundJournal::SetAside { path: aside, .. }, FoundJournal::Whole(left)] =
                &found[..]
            else {
                panic!("with {kept} bytes: {found:?}");
            };
            assert!(aside.ends_with("br0.json.damaged"), "{aside}");
            assert_eq!(**left, other);
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(
            read_journal(folder.path(), &journal().network.bridge).unwrap(),
            Some(journal())
        );
    }
}
