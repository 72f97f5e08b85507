//! Binding to one address of one device, and saying who is in the way.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use vnet_listeners::{Sockets, holders};
use vnet_types::{IfName, Listen, PortRange, Protocol};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why a DNS server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody else has the port.
    #[error(
        "cannot serve DNS at {addr}/{protocol}: {holder} has the port; let it listen on its own addresses only, or stop it"
    )]
    Taken {
        /// The address that was asked for.
        addr: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// Who holds it, as in `dnsmasq (pid 812)`, or `another process`.
        holder: String,
    },
    /// The address is on no interface.
    #[error("cannot serve DNS at {addr}: no interface has that address; bring the bridge up first")]
    NoAddress {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// No address was given.
    #[error("cannot serve DNS: no address is given to listen on")]
    Nowhere,
    /// There is no such interface.
    #[error("cannot serve DNS on {device}: there is no such interface; bring the bridge up first")]
    NoDevice {
        /// The interface that was asked for.
        device: IfName,
    },
    /// The port is a privileged one.
    #[error("cannot serve DNS at {addr}: ports below 1024 need CAP_NET_BIND_SERVICE")]
    Privilege {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// Anything else that the kernel refuses.
    #[error("cannot serve DNS at {addr}/{protocol}")]
    Socket {
        /// The address that was asked for.
        addr: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// A UDP and a TCP socket.
type Pair = (UdpSocket, TcpListener);

/// A pair of sockets for each device, all at the same address and port, and that address.
pub(super) fn bind_all(
    listen: SocketAddr,
    devices: &[IfName],
) -> Result<(Vec<Pair>, SocketAddr), ServerError> {
    let (udp, tcp, addr) = bind(listen, devices.first())?;
    let mut pairs = vec![(udp, tcp)];
    for device in devices.iter().skip(1) {
        let (udp, tcp, _) = bind(addr, Some(device))?;
        pairs.push((udp, tcp));
    }
    Ok((pairs, addr))
}

/// Both sockets at the same address and port, and that address.
fn bind(
    listen: SocketAddr,
    device: Option<&IfName>,
) -> Result<(UdpSocket, TcpListener, SocketAddr), ServerError> {
    let tcp = open(listen, device, "tcp")?;
    let source = |source| ServerError::Socket { addr: listen, protocol: "tcp", source };
    tcp.listen(BACKLOG).map_err(source)?;
    // Where port 0 was asked for, TCP has found a port and UDP takes the same.
    let addr = tcp.local_addr().map_err(source)?.as_socket().unwrap_or(listen);
    let udp = open(addr, device, "udp")?;
    let tcp = TcpListener::from_std(tcp.into()).map_err(source)?;
    let udp = UdpSocket::from_std(udp.into()).map_err(|source| ServerError::Socket {
        addr,
        protocol: "udp",
        source,
    })?;
    Ok((udp, tcp, addr))
}

fn open(
    addr: SocketAddr,
    device: Option<&IfName>,
    protocol: &'static str,
) -> Result<Socket, ServerError> {
    let explain = |source: io::Error| match source.raw_os_error() {
        Some(libc_errno::EADDRINUSE) => {
            let holder = holder(addr, protocol).unwrap_or_else(|| "another process".to_owned());
            ServerError::Taken { addr, protocol, holder }
        }
        Some(libc_errno::EADDRNOTAVAIL) => ServerError::NoAddress { addr },
        Some(libc_errno::EACCES) => ServerError::Privilege { addr },
        _ => ServerError::Socket { addr, protocol, source },
    };
    let (kind, number) = match protocol {
        "tcp" => (Type::STREAM, socket2::Protocol::TCP),
        _ => (Type::DGRAM, socket2::Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(addr), kind, Some(number)).map_err(explain)?;
    socket.set_nonblocking(true).map_err(explain)?;
    if protocol == "tcp" {
        // So that connections that linger in TIME_WAIT don't stop a restart. Not for UDP, where it
        // would let two servers share the port and each get some of the queries.
        socket.set_reuse_address(true).map_err(explain)?;
    }
    if let Some(device) = device {
        // Before bind(2), so that only sockets on the same device, or on any, are in the way.
        socket.bind_device(Some(device.as_str().as_bytes())).map_err(|source| {
            match source.raw_os_error() {
                Some(libc_errno::ENODEV) => ServerError::NoDevice { device: device.clone() },
                _ => ServerError::Socket { addr, protocol, source },
            }
        })?;
    }
    socket.bind(&SockAddr::from(addr)).map_err(explain)?;
    Ok(socket)
}

/// asm-generic/errno.h and errno-base.h
mod libc_errno {
    pub(super) const EACCES: i32 = 13;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EADDRINUSE: i32 = 98;
    pub(super) const EADDRNOTAVAIL: i32 = 99;
}

/// Who holds the port of `addr`, as far as /proc tells this process: names with their pids.
fn holder(addr: SocketAddr, protocol: &str) -> Option<String> {
    let protocol = if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp };
    let address = Some(addr.ip());
    let ports = PortRange::new(addr.port(), addr.port())?;
    holders(&Sockets::default().in_the_way(&Listen { address, ports, protocol }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_explained_with_its_holder() {
        let held = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let error = bind(SocketAddr::new([127, 0, 0, 9].into(), port), None).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.9:{port}/udp")), "{text}");
        assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    }

    #[tokio::test]
    async fn a_missing_address_and_a_missing_device_are_named() {
        let error = bind("192.0.2.1:0".parse().unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("no interface has that address"), "{error}");
        let device: IfName = "vnet-none0".parse().unwrap();
        let error = bind("127.0.0.1:0".parse().unwrap(), Some(&device)).unwrap_err().to_string();
        assert!(error.contains("vnet-none0"), "{error}");
    }
}
