//! Queues with a rate, and the way of incoming frames through them: traffic control over
//! rtnetlink, as bytes (linux/pkt_sched.h, linux/pkt_cls.h).

use std::collections::BTreeMap;
use std::io;

use vnet_plan::{Bucket, Redirect, Shape};
use vnet_types::{IfName, MacAddr};

use crate::attributes::{append as attribute, find};
use crate::uplink::Rtnetlink;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCL: u16 = libc::NLM_F_EXCL as u16;
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;

/// `tcmsg`.
const HEADER: usize = 20;
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
/// `ffff:`, the handle of the ingress queue.
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// The first of the filters.
const PRIORITY: u32 = 1;
const ALL_PROTOCOLS: u16 = 3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// `TC_ACT_STOLEN`, `TCA_EGRESS_REDIR`.
const STOLEN: u32 = 4;
const EGRESS_REDIR: u32 = 1;
/// `TC_LINKLAYER_ETHERNET`; `TC_U32_TERMINAL`.
const ETHERNET: u8 = 1;
const TERMINAL: u8 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

impl Rtnetlink {
    /// Makes an intake: a link of the kind `ifb`.
    pub(crate) fn create_intake(&mut self, name: &IfName, mac: MacAddr) -> io::Result<()> {
        let mut body = vec![0; 16];
        attribute(&mut body, IFLA_IFNAME, &zero_ended(name.as_str()));
        attribute(&mut body, IFLA_ADDRESS, &mac.octets());
        let mut info = Vec::new();
        attribute(&mut info, IFLA_INFO_KIND, b"ifb");
        attribute(&mut body, IFLA_LINKINFO, &info);
        self.ask(libc::RTM_NEWLINK, CREATE | EXCL, &body)
    }

    /// Gives a link a queue with a rate, in place of the one that it has.
    pub(crate) fn shape(&mut self, link: &IfName, bucket: &Bucket) -> io::Result<()> {
        let mut body = header(index(link)?, 0, ROOT, 0);
        attribute(&mut body, TCA_KIND, &zero_ended("tbf"));
        let mut options = Vec::new();
        attribute(&mut options, TBF_PARMS, &parameters(bucket));
        attribute(&mut options, TBF_RATE64, &bucket.rate.to_ne_bytes());
        attribute(&mut options, TBF_BURST, &bucket.burst.to_ne_bytes());
        attribute(&mut body, TCA_OPTIONS, &options);
        self.ask(libc::RTM_NEWQDISC, CREATE | REPLACE, &body)
    }

    /// Gives a link back the queue that such links have.
    pub(crate) fn unshape(&mut self, link: &IfName) -> io::Result<()> {
        gone(self.ask(libc::RTM_DELQDISC, 0, &header(index(link)?, 0, ROOT, 0)))
    }

    /// Takes what comes in by `link` through the queue of `to` first.
    pub(crate) fn redirect(&mut self, link: &IfName, to: &IfName) -> io::Result<()> {
        // Whatever led elsewhere goes with its queue.
        self.unredirect(link)?;
        let link = index(link)?;
        let mut body = header(link, INGRESS_HANDLE, INGRESS, 0);
        attribute(&mut body, TCA_KIND, &zero_ended("ingress"));
        self.ask(libc::RTM_NEWQDISC, CREATE | EXCL, &body)?;
        let protocol = u32::from(ALL_PROTOCOLS.to_be());
        let mut body = header(link, 0, INGRESS_HANDLE, PRIORITY << 16 | protocol);
        attribute(&mut body, TCA_KIND, &zero_ended("u32"));
        attribute(&mut body, TCA_OPTIONS, &everything_to(index(to)?));
        self.ask(libc::RTM_NEWTFILTER, CREATE | EXCL, &body)
    }

    /// Lets what comes in by a link in at once.
    pub(crate) fn unredirect(&mut self, link: &IfName) -> io::Result<()> {
        gone(self.ask(libc::RTM_DELQDISC, 0, &header(index(link)?, INGRESS_HANDLE, INGRESS, 0)))
    }

    /// What limits links, by their index.
    pub(crate) fn shapes(&mut self) -> io::Result<BTreeMap<u32, Shape>> {
        let mut shapes: BTreeMap<u32, Shape> = BTreeMap::new();
        for queue in self.dump(libc::RTM_GETQDISC, &[0; HEADER])? {
            let Some(link) = word(&queue, 4) else { continue };
            match (kind(&queue), word(&queue, 12)) {
                (Some(b"tbf"), Some(ROOT)) => {
                    shapes.entry(link).or_default().bucket = bucket(&queue);
                }
                (Some(b"ingress"), _) => {
                    shapes.entry(link).or_default().redirect = Some(self.redirection(link)?);
                }
                _ => {}
            }
        }
        Ok(shapes)
    }

    fn redirection(&mut self, link: u32) -> io::Result<Redirect> {
        let filters = self.dump(libc::RTM_GETTFILTER, &header(link, 0, INGRESS_HANDLE, 0))?;
        let target = filters.iter().find_map(|filter| {
            let options = find(filter.get(HEADER..)?, TCA_OPTIONS)?;
            // The selector must have no key but the one that fits everything.
            let selector = find(options, U32_SEL)?;
            let key = selector.get(16..24)?;
            let action = find(find(options, U32_ACT)?, 1)?;
            let parameters = find(find(action, ACT_OPTIONS)?, MIRRED_PARMS)?;
            let redirects = word(parameters, 20)? == EGRESS_REDIR;
            (selector.get(2) == Some(&1) && key == [0; 8] && redirects)
                .then(|| word(parameters, 24))?
        });
        Ok(target.map_or(Redirect::Unknown, Redirect::To))
    }
}

fn header(link: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let words = [0, link, handle, parent, info];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `tc_tbf_qopt`: the rate, a peak rate, the limit, and what the attributes beside it say better.
fn parameters(bucket: &Bucket) -> Vec<u8> {
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(rate.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(bucket.limit.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn bucket(queue: &[u8]) -> Option<(u64, u32)> {
    let options = find(queue.get(HEADER..)?, TCA_OPTIONS)?;
    let parameters = find(options, TBF_PARMS)?;
    let rate64 = find(options, TBF_RATE64).and_then(|rate| rate.try_into().ok());
    let rate = match rate64 {
        Some(bytes) => u64::from_ne_bytes(bytes),
        None => word(parameters, 8)?.into(),
    };
    Some((rate, word(parameters, 24)?))
}

/// The options of a u32 filter that takes everything to the link with this index.
fn everything_to(link: u32) -> Vec<u8> {
    let mut options = Vec::new();
    // tc_u32_sel with one tc_u32_key, whose mask is 0.
    let mut selector = vec![TERMINAL, 0, 1, 0];
    selector.extend([0; 12 + 16]);
    attribute(&mut options, U32_SEL, &selector);
    let mut mirred = Vec::new();
    for word in [0, 0, STOLEN, 0, 0, EGRESS_REDIR, link] {
        mirred.extend(word.to_ne_bytes());
    }
    let mut parameters = Vec::new();
    attribute(&mut parameters, MIRRED_PARMS, &mirred);
    let mut action = Vec::new();
    attribute(&mut action, ACT_KIND, &zero_ended("mirred"));
    attribute(&mut action, ACT_OPTIONS, &parameters);
    let mut actions = Vec::new();
    attribute(&mut actions, 1, &action);
    attribute(&mut options, U32_ACT, &actions);
    options
}

/// What is to go may be gone already.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn index(link: &IfName) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(link.as_str())?)
}

fn zero_ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn kind(queue: &[u8]) -> Option<&[u8]> {
    find(queue.get(HEADER..)?, TCA_KIND)?.strip_suffix(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_read_back() {
        let bucket = Bucket { rate: 5_000_000_000, burst: 9, limit: 77 };
        let mut queue = header(3, 0, ROOT, 0);
        attribute(&mut queue, TCA_KIND, &zero_ended("tbf"));
        let mut options = Vec::new();
        attribute(&mut options, TBF_PARMS, &parameters(&bucket));
        attribute(&mut options, TBF_RATE64, &bucket.rate.to_ne_bytes());
        attribute(&mut queue, TCA_OPTIONS, &options);
        assert_eq!(super::bucket(&queue), Some((5_000_000_000, 77)));
        assert_eq!(kind(&queue), Some(&b"tbf"[..]));
        for cut in 0..queue.len() {
            let _ = super::bucket(&queue[..cut]);
            let _ = kind(&queue[..cut]);
        }
    }
}
