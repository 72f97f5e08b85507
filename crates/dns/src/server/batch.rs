//! Datagrams by the batch: one call of the kernel for all that wait, and one for their answers.
//!
//! The buffers are the thread's, shared by all servers on it: a network costs nothing while nobody
//! asks.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

/// Datagrams in a batch.
pub(super) const BATCH: usize = 32;

/// Bytes in the largest query that is read whole. One that is longer does not parse.
const MAX_QUERY: usize = 2048;

/// Bytes that an answer's buffer has from the beginning.
const REPLY: usize = 1232;

thread_local! {
    static SHARED: RefCell<Batch> = RefCell::new(Batch::new());
}

/// Buffers for a batch of queries and their answers.
pub(super) struct Batch {
    queries: Vec<[u8; MAX_QUERY]>,
    clients: Vec<SockAddrStorage>,
    replies: Vec<Vec<u8>>,
    iovs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// The query that each answer to be sent is for.
    answered: Vec<usize>,
}

/// What was received in one place of a batch.
pub(super) struct Query<'b> {
    pub(super) bytes: &'b [u8],
    /// Nothing where the sender has no address that can be answered.
    pub(super) client: Option<SocketAddr>,
    /// Where its answer goes.
    pub(super) reply: &'b mut Vec<u8>,
}

/// Lends the thread's buffers.
pub(super) fn with<R>(work: impl FnOnce(&mut Batch) -> R) -> R {
    SHARED.with_borrow_mut(work)
}

impl Batch {
    fn new() -> Self {
        let no_iov = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let no_header = libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: ptr::null_mut(),
                msg_iovlen: 0,
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        };
        Self {
            queries: vec![[0; MAX_QUERY]; BATCH],
            clients: (0..BATCH).map(|_| SockAddrStorage::zeroed()).collect(),
            replies: (0..BATCH).map(|_| Vec::with_capacity(REPLY)).collect(),
            iovs: vec![no_iov; BATCH],
            headers: vec![no_header; BATCH],
            answered: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what waits, up to [`BATCH`] datagrams, and says how many there were.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.answered.clear();
        let places = self.queries.iter_mut().zip(&mut self.clients);
        for ((query, client), (iov, header)) in
            places.zip(self.iovs.iter_mut().zip(&mut self.headers))
        {
            iov.iov_base = query.as_mut_ptr().cast();
            iov.iov_len = query.len();
            header.msg_hdr.msg_namelen = client.size_of();
            header.msg_hdr.msg_name = ptr::from_mut(client).cast();
            header.msg_hdr.msg_iov = iov;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: each header points to an address and to one iovec of a buffer, all of which are
        // this batch's own, as large as they say, and neither moved nor read during the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// What was received in this place.
    pub(super) fn query(&mut self, place: usize) -> Option<Query<'_>> {
        let header = self.headers.get(place)?;
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: both are the same type, whole and initialised; the kernel has written an address
        // of this length into the one that is copied.
        let client = unsafe {
            ptr::copy_nonoverlapping(self.clients.get(place)?, &raw mut storage, 1);
            SockAddr::new(storage, header.msg_hdr.msg_namelen)
        };
        let client = client.as_socket();
        // What did not fit is cut to its header, which is no query.
        let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let len = if whole { header.msg_len as usize } else { crate::wire::HEADER };
        let bytes = self.queries.get(place)?.get(..len)?;
        Some(Query { bytes, client, reply: self.replies.get_mut(place)? })
    }

    /// Notes that the answer in this place is to be sent.
    pub(super) fn answer(&mut self, place: usize) {
        if self.answered.len() < BATCH {
            self.answered.push(place);
        }
    }

    /// Sends the answers, each to whom its query came from, and says how many there were. One that
    /// cannot be sent is left out: where the buffer is full or the client unreachable, the client
    /// asks again.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let answers = self.answered.len();
        // A header's own place is never before that of the query whose address it takes over.
        for (to, &from) in self.answered.iter().enumerate() {
            let Some(name) = self.headers.get(from).map(|header| header.msg_hdr) else { continue };
            let (Some(reply), Some(iov), Some(header)) =
                (self.replies.get_mut(from), self.iovs.get_mut(to), self.headers.get_mut(to))
            else {
                continue;
            };
            iov.iov_base = reply.as_mut_ptr().cast();
            iov.iov_len = reply.len();
            header.msg_hdr.msg_name = name.msg_name;
            header.msg_hdr.msg_namelen = name.msg_namelen;
            header.msg_hdr.msg_iov = iov;
            header.msg_hdr.msg_iovlen = 1;
        }
        let mut done = 0;
        while let Some(rest) = self.headers.get_mut(done..answers).filter(|rest| !rest.is_empty()) {
            // SAFETY: as in `receive`; the buffers are the answers, which are not written to.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            // The error is the first one's; what is behind it may well be sent.
            done += usize::try_from(sent).unwrap_or(0).max(1);
        }
        answers
    }
}
