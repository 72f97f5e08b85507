//! The host's links, addresses and foreign routes as the kernel has told of them, kept in step by
//! its notices: a look costs what has changed since the last one, not what there is.
//!
//! Notices of one change are in our socket before the kernel answers whoever made it, so what we
//! did ourselves is seen at once. What no notice tells (some sysctls of a link) is read anew after
//! we have written it; where others have, at the next [`Mirror::forget`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::socket::SockProtocol;
use vnet_plan::{HostAddresses, Links, Route, Shape};

use crate::attributes::find;
use crate::netlink;
use crate::notices::{self, Notice, next, subscribe};
use crate::uplink::Rtnetlink;

/// `RTM_NEWNETCONF` (linux/rtnetlink.h).
const NEW_NETCONF: u16 = 80;
/// `NETCONFA_IFINDEX`, `NETCONFA_FORWARDING` (linux/netconf.h).
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
/// Larger than a notice about any link.
const NOTICE: usize = 32 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Mirror {
    notices: OwnedFd,
    route_notices: OwnedFd,
    queue_notices: OwnedFd,
    /// Whether what is below is all there is, but for notices that wait.
    complete: bool,
    links: Links,
    addresses: HostAddresses,
    /// Links whose settings no notice tells.
    stale: BTreeSet<String>,
    /// Routes by links that aren't ours; none where they have changed.
    routes: Option<Arc<Vec<Route>>>,
    /// What limits links; none where that has changed.
    shapes: Option<Arc<BTreeMap<u32, Shape>>>,
    buffer: Vec<u8>,
}

impl Mirror {
    /// Begins to listen in this thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            notices: subscribe(SockProtocol::NetlinkRoute, notices::HOST)?,
            route_notices: subscribe(SockProtocol::NetlinkRoute, notices::ROUTES)?,
            queue_notices: subscribe(SockProtocol::NetlinkRoute, notices::TC)?,
            complete: false,
            links: Links::default(),
            addresses: HostAddresses::default(),
            stale: BTreeSet::new(),
            routes: None,
            shapes: None,
            buffer: vec![0; NOTICE],
        })
    }

    /// A descriptor that becomes readable when something changes.
    pub(crate) fn wakes(&self) -> io::Result<OwnedFd> {
        self.notices.try_clone()
    }

    /// Has everything read anew at the next look.
    pub(crate) fn forget(&mut self) {
        self.complete = false;
        self.routes = None;
        self.shapes = None;
    }

    /// Has the settings of a link read anew at the next look.
    pub(crate) fn forget_settings(&mut self, link: &str) {
        self.stale.insert(link.to_owned());
    }

    /// Links and addresses as they are now.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn look(&mut self, kernel: &mut Rtnetlink) -> io::Result<(&Links, &HostAddresses)> {
        self.catch_up()?;
        if !self.complete {
            self.stale.clear();
            self.links = kernel.all_links()?.into_iter().collect();
            self.addresses = kernel.all_addresses()?.into_iter().collect();
            self.complete = true;
            // What has changed during the two dumps.
            self.catch_up()?;
        }
        for name in std::mem::take(&mut self.stale) {
            match kernel.link(&name) {
                Ok(Some((name, link))) => self.links.insert(name, link),
                Ok(None) => drop(self.links.remove(&name)),
                // Those that are left are not known either.
                Err(error) => {
                    self.complete = false;
                    return Err(error);
                }
            }
        }
        Ok((&self.links, &self.addresses))
    }

    /// The index of a link.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn index(&mut self, name: &str, kernel: &mut Rtnetlink) -> io::Result<Option<u32>> {
        let (links, _) = self.look(kernel)?;
        Ok(links.get(name).map(|link| link.index))
    }

    /// Routes by links that aren't ours, as they are now. To be called after a look.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn routes(&mut self, kernel: &mut Rtnetlink) -> io::Result<Arc<Vec<Route>>> {
        self.catch_up_with_routes()?;
        if let Some(routes) = &self.routes {
            return Ok(routes.clone());
        }
        let mut routes = kernel.all_routes()?;
        routes.retain(|route| !route.link.is_some_and(|link| self.is_ours(link)));
        let routes = Arc::new(routes);
        self.routes = Some(routes.clone());
        Ok(routes)
    }

    /// What limits links, by their index.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn shapes(
        &mut self,
        kernel: &mut Rtnetlink,
    ) -> io::Result<Arc<BTreeMap<u32, Shape>>> {
        while next(&self.queue_notices, &mut self.buffer)?.is_some() {
            self.shapes = None;
        }
        if let Some(shapes) = &self.shapes {
            return Ok(shapes.clone());
        }
        let shapes = Arc::new(kernel.shapes()?);
        self.shapes = Some(shapes.clone());
        Ok(shapes)
    }

    fn is_ours(&self, link: u32) -> bool {
        self.links.at(link).is_some_and(|(_, link)| link.alias.is_some())
    }

    fn catch_up(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = loop {
            match next(&self.notices, &mut buffer) {
                // What is about to be read anew knows better.
                Ok(Some(_)) if !self.complete => {}
                Ok(Some(Notice::Message(kind, body))) => self.take(kind, body),
                // Too many have waited, or one was too large.
                Ok(Some(Notice::Lost)) => self.complete = false,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        result
    }

    fn take(&mut self, kind: u16, body: &[u8]) {
        match kind {
            libc::RTM_NEWLINK => {
                let Some((name, link)) = netlink::link(body) else { return };
                let was_up = self.links.at(link.index).is_some_and(|(_, before)| before.up);
                // The kernel does not tell of the routes that go with a link.
                if was_up && !link.up && link.alias.is_none() {
                    self.routes = None;
                }
                self.links.insert(name, link);
            }
            libc::RTM_DELLINK => {
                let Some((_, gone)) = netlink::link(body) else { return };
                if gone.alias.is_none() {
                    self.routes = None;
                }
                // By its number: another link may have its name by now.
                if let Some(name) = self.links.at(gone.index).map(|(name, _)| name.to_owned()) {
                    self.links.remove(&name);
                }
                self.addresses.remove_all_of(gone.index);
            }
            libc::RTM_NEWADDR => {
                if let Some(address) = netlink::address(body) {
                    self.addresses.insert(address);
                }
            }
            libc::RTM_DELADDR => {
                if let Some(address) = netlink::address(body) {
                    self.addresses.remove(&address);
                }
            }
            NEW_NETCONF => self.take_forwarding(body),
            _ => {}
        }
    }

    /// Whether a link forwards has changed.
    fn take_forwarding(&mut self, body: &[u8]) {
        let number = |wanted| {
            let attributes = body.get(4..)?;
            Some(i32::from_ne_bytes(find(attributes, wanted)?.get(..4)?.try_into().ok()?))
        };
        let (Some(index), Some(on)) = (number(NETCONFA_IFINDEX), number(NETCONFA_FORWARDING))
        else {
            return;
        };
        let link = u32::try_from(index).ok().and_then(|index| self.links.at(index));
        let Some(name) = link.map(|(name, _)| name.to_owned()) else { return };
        let is_ipv6 = body.first() == Some(&(libc::AF_INET6 as u8));
        self.links.change(&name, |link| {
            let setting = if is_ipv6 { &mut link.ipv6.forwarding } else { &mut link.forwarding };
            *setting = on != 0;
        });
    }

    fn catch_up_with_routes(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = loop {
            match next(&self.route_notices, &mut buffer) {
                Ok(Some(_)) if self.routes.is_none() => {}
                Ok(Some(Notice::Message(kind, body))) => {
                    let routes = netlink::routes(body);
                    let is_known = |link| self.links.at(link).is_some();
                    let counts = routes.iter().any(|route| match route.link {
                        // With a link of ours that is gone by now.
                        Some(link) if kind == libc::RTM_DELROUTE && !is_known(link) => false,
                        Some(link) => !self.is_ours(link),
                        None => true,
                    });
                    if counts {
                        self.routes = None;
                    }
                }
                Ok(Some(Notice::Lost)) => self.routes = None,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        result
    }
}
