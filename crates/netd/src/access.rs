//! Who may speak to netd: root, the user that netd runs as, and members of the group `vnet`.

use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Group, Uid, chown};

const GROUP: &str = "vnet";

/// Groups of a process beyond which the kernel itself does not go (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

/// Sets who may connect to the socket at `path`.
pub(crate) fn protect(path: &Path) -> io::Result<()> {
    let group = group();
    if let Some(group) = group {
        chown(path, None, Some(group))?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether the process at the other end of `socket` may ask for anything.
pub(crate) fn allowed(socket: &impl std::os::fd::AsFd) -> io::Result<bool> {
    let peer = getsockopt(socket, PeerCredentials)?;
    let uid = Uid::from_raw(peer.uid());
    if uid.is_root() || uid == Uid::effective() {
        return Ok(true);
    }
    let Some(group) = group() else { return Ok(false) };
    Ok(Gid::from_raw(peer.gid()) == group || peer_groups(socket)?.contains(&group.as_raw()))
}

/// Looked up once: the look-up may ask a directory service, for which nobody is to wait.
fn group() -> Option<Gid> {
    static GID: LazyLock<Option<Gid>> =
        LazyLock::new(|| Group::from_name(GROUP).ok().flatten().map(|group| group.gid));
    *GID
}

/// The supplementary groups of the peer (SO_PEERGROUPS), as they were when it connected.
fn peer_groups(socket: &impl std::os::fd::AsFd) -> io::Result<Vec<libc::gid_t>> {
    let mut groups = vec![0; MAX_GROUPS];
    let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `groups`, which has that many, and sets
    // `length` to how many it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / size_of::<libc::gid_t>());
    Ok(groups)
}
