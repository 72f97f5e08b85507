//! A card's connection to netd: events while it lasts, and attempts to get it back when netd has
//! gone. The card itself works on meanwhile, since its tap does.
//!
//! ```text
//! connected ── netd gone ──▶ waiting (0.1 s, then twice as long each time, 5 s at most)
//!     ▲                          │
//!     └──── Resume accepted ─────┘
//! ```

use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vnet_api::ports::{Event, PortConnection, Request};
use vnet_types::IfName;
use vnet_virtio::net::Link;

/// The first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The connection of one card.
#[derive(Debug)]
pub struct Session {
    connection: Option<PortConnection>,
    port: IfName,
    socket: PathBuf,
    link: Arc<Link>,
    pause: Duration,
}

impl Session {
    pub(super) fn new(
        connection: PortConnection,
        port: IfName,
        socket: PathBuf,
        link: Arc<Link>,
    ) -> Self {
        Self { connection: Some(connection), port, socket, link, pause: FIRST_PAUSE }
    }

    /// The card's interface on the host.
    #[must_use]
    pub fn port(&self) -> &IfName {
        &self.port
    }

    /// What to wait on for [`on_readable`](Self::on_readable), while connected.
    #[must_use]
    pub fn fd(&self) -> Option<RawFd> {
        self.connection.as_ref().map(|connection| connection.as_fd().as_raw_fd())
    }

    /// Takes the event that has come. False if the connection has ended: after
    /// [`pause`](Self::pause), [`reconnect`](Self::reconnect).
    pub fn on_readable(&mut self) -> bool {
        let event = self.connection.as_ref().map(PortConnection::next_event);
        match event {
            Some(Ok(Some(Event::Link(up)))) => self.link.set_up(up),
            Some(Ok(Some(Event::Mtu(mtu)))) => self.link.set_mtu(mtu),
            Some(Ok(None) | Err(_)) | None => {
                self.connection = None;
                self.pause = FIRST_PAUSE;
                return false;
            }
        }
        true
    }

    /// How long to wait before the next attempt.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Tries once; true if netd is back. The link's state is then what netd says.
    pub fn reconnect(&mut self) -> bool {
        let request = Request::Resume { port: self.port.clone() };
        match PortConnection::open(&self.socket, &request) {
            Ok((connection, port, _)) => {
                self.connection = Some(connection);
                self.pause = FIRST_PAUSE;
                self.link.set_up(port.link_up);
                self.link.set_mtu(port.mtu);
                true
            }
            Err(_) => {
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                false
            }
        }
    }
}
