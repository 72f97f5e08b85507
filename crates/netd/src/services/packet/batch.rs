//! Many frames in one system call.

use std::cell::RefCell;
use std::io;
use std::mem::zeroed;

use vnet_dhcp::frame::Checksum;

/// Bytes in the largest frame that is read; a DHCP message is far smaller.
const MAX_FRAME: usize = 9216;
/// Frames that are read or sent at a time.
const SLOTS: usize = 64;
/// 8-byte units, for the alignment of cmsghdr, that hold one tpacket_auxdata with its header.
const CONTROL: usize = 8;

thread_local! {
    /// One for all sockets: what is read is dealt with before anything is awaited.
    static BATCH: RefCell<Batch> = RefCell::new(Batch::new());
}

/// Frames that were read together.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    control: Vec<[u64; CONTROL]>,
    frames: Vec<(usize, Checksum)>,
}

impl Batch {
    fn new() -> Self {
        let (bytes, control) = (vec![0; SLOTS * MAX_FRAME], vec![[0; CONTROL]; SLOTS]);
        Self { bytes, control, frames: Vec::with_capacity(SLOTS) }
    }

    /// Lends the thread's own.
    pub(crate) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        BATCH.with(|batch| match batch.try_borrow_mut() {
            Ok(mut batch) => work(&mut batch),
            Err(_) => work(&mut Self::new()),
        })
    }

    /// The frames, each with what is known of its checksum.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (&[u8], Checksum)> {
        let slots = self.bytes.chunks_exact(MAX_FRAME);
        slots
            .zip(&self.frames)
            .map(|(slot, (length, checksum))| (slot.get(..*length).unwrap_or_default(), *checksum))
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there may be more.
    pub(crate) fn is_full(&self) -> bool {
        self.frames.len() == SLOTS
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
    }

    /// Reads what waits in `socket`, which does not block.
    pub(super) fn fill(&mut self, socket: libc::c_int) -> io::Result<()> {
        self.clear();
        // SAFETY: iovec and mmsghdr are plain old data, for which all zeroes is a valid value.
        let (mut parts, mut messages): ([libc::iovec; SLOTS], [libc::mmsghdr; SLOTS]) =
            unsafe { (zeroed(), zeroed()) };
        let slots = self.bytes.chunks_exact_mut(MAX_FRAME).zip(&mut self.control);
        for ((part, message), (slot, control)) in parts.iter_mut().zip(&mut messages).zip(slots) {
            *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = size_of_val(control);
        }
        // SAFETY: each message points to a buffer, an iovec and a control buffer that outlive the
        // call, with their true sizes; there are as many as is said.
        let read = unsafe {
            let (count, none) = (SLOTS as libc::c_uint, std::ptr::null_mut());
            libc::recvmmsg(socket, messages.as_mut_ptr(), count, libc::MSG_DONTWAIT, none)
        };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        let frames = messages.iter().take(read);
        self.frames.extend(frames.map(|one| (one.msg_len as usize, checksum(&one.msg_hdr))));
        Ok(())
    }
}

/// Whether the kernel says that a frame's checksum was never filled in: it is from another guest
/// of this host.
fn checksum(message: &libc::msghdr) -> Checksum {
    // SAFETY: the kernel has filled in the control buffer and its length, by which
    // CMSG_FIRSTHDR goes; the data is read as bytes of the size that was checked.
    let status = unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        let length = libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) as usize;
        if !header.is_null()
            && (*header).cmsg_level == libc::SOL_PACKET
            && (*header).cmsg_type == libc::PACKET_AUXDATA
            && (*header).cmsg_len >= length
        {
            libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned().tp_status
        } else {
            0
        }
    };
    let partial = status & libc::TP_STATUS_CSUMNOTREADY != 0;
    if partial { Checksum::Trust } else { Checksum::Verify }
}

/// Frames one behind the other, to be sent in this order.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    pub(crate) fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
    }
}

/// Sends all: how many were lost, and why the last of them.
pub(super) fn send(socket: libc::c_int, frames: &Frames) -> Option<(usize, io::Error)> {
    let mut lost = None;
    let mut all = frames.iter().peekable();
    while all.peek().is_some() {
        // SAFETY: iovec and mmsghdr are plain old data, for which all zeroes is a valid value.
        let (mut parts, mut messages): ([libc::iovec; SLOTS], [libc::mmsghdr; SLOTS]) =
            unsafe { (zeroed(), zeroed()) };
        let mut count = 0;
        // `all` comes last: zip takes nothing from it once the slots are full.
        for ((part, message), frame) in parts.iter_mut().zip(&mut messages).zip(all.by_ref()) {
            *part =
                libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        let mut done = 0;
        while let Some(rest) = messages.get_mut(done..count).filter(|rest| !rest.is_empty()) {
            // SAFETY: each message points to an iovec and to bytes that outlive the call, which
            // only reads them; there are as many as is said.
            let sent =
                unsafe { libc::sendmmsg(socket, rest.as_mut_ptr(), rest.len() as libc::c_uint, 0) };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => done += sent,
                // The first of them cannot be sent; those behind it may.
                _ => {
                    let before = lost.map_or(0, |(count, _)| count);
                    lost = Some((before + 1, io::Error::last_os_error()));
                    done += 1;
                }
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn frames_are_sent_and_read_in_their_order() {
        let (one, other) = UnixDatagram::pair().unwrap();
        let mut frames = Frames::default();
        // More than a batch has room for, and one that is empty.
        let all: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; usize::from(n)]).collect();
        all.iter().for_each(|frame| frames.push(frame));
        assert_eq!(frames.len(), 100);
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(send(one.as_raw_fd(), &frames).is_none()));
            let mut batch = Batch::new();
            while read.len() < 100 {
                match batch.fill(other.as_raw_fd()) {
                    Ok(()) => read.extend(batch.frames().map(|(frame, _)| frame.to_vec())),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
        });
        assert_eq!(read, all);
    }

    #[test]
    fn a_frame_that_cannot_be_sent_hinders_no_other() {
        let (one, other) = UnixDatagram::pair().unwrap();
        let mut frames = Frames::default();
        for frame in [&b"a"[..], &vec![0; 64 << 20], b"b"] {
            frames.push(frame);
        }
        assert_eq!(send(one.as_raw_fd(), &frames).unwrap().0, 1);
        let mut batch = Batch::new();
        batch.fill(other.as_raw_fd()).unwrap();
        assert_eq!(batch.frames().map(|(frame, _)| frame).collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
