//! What the owners of ports are told while they have them: the MTU of their network.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use vnet_api::ports::Port;
use vnet_kernel::Routes;
use vnet_types::IfName;

use crate::daemon::Shared;

/// Those who have a connection, by their port.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// The MTU that each knows, or will when it has read what was sent.
    mtus: Mutex<BTreeMap<IfName, watch::Sender<u16>>>,
}

impl Owners {
    /// The MTU of a port, as it changes, for its owner, who has just been told of it. Whoever asks
    /// last is told.
    pub(crate) fn follow(&self, port: &Port) -> watch::Receiver<u16> {
        let (sender, receiver) = watch::channel(port.mtu);
        let mut mtus = self.mtus.lock().unwrap_or_else(PoisonError::into_inner);
        mtus.retain(|_, sender| !sender.is_closed());
        mtus.insert(port.name.clone(), sender);
        receiver
    }

    /// Whether the owner of `link`, if it has one, knows another MTU.
    pub(crate) fn is_news(&self, link: &IfName, mtu: u32) -> bool {
        let mtus = self.mtus.lock().unwrap_or_else(PoisonError::into_inner);
        mtus.get(link).is_some_and(|sender| u32::from(*sender.borrow()) != mtu)
    }

    /// A link has this MTU; its owner is told if it is a port, and had another.
    fn has_mtu(&self, link: &IfName, mtu: u32) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let mtus = self.mtus.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = mtus.get(link) {
            sender.send_if_modified(|known| std::mem::replace(known, mtu) != mtu);
        }
    }
}

impl Shared {
    /// Tells all owners what has changed. News of a link may be older than what its owner knows, so
    /// it is only the reason to look.
    pub(crate) async fn tell_owners(&self) {
        let Ok(observed) = self.daemon.lock().await.observe(Routes::Skip).await else { return };
        for (name, link) in observed.links.iter() {
            if let Ok(name) = name.parse() {
                self.owners.has_mtu(&name, link.mtu);
            }
        }
    }
}
