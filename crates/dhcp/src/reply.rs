//! What a client is told: the header by `dhcproto`, the options in the order in which the
//! client asked for them, within the size that it takes.

use std::net::Ipv4Addr;

use dhcproto::v4::{
    DhcpOption, EncodeResult, Flags, Message, MessageType, Opcode, OptionCode,
    encode_long_opt_bytes,
};
use dhcproto::{Encodable, Encoder};
use vnet_types::DnsName;

use crate::config::ServerConfig;
use crate::frame::IP_OVERHEAD;
use crate::message::{ClientMessage, Fqdn};
use crate::options::{OptionTable, UNASKED};

/// Bytes in the smallest message: clients that know BOOTP drop shorter ones (RFC 1542 §2.1).
const MIN_MESSAGE: usize = 300;
/// Bytes of IP that every client takes (RFC 2131 §2), and the least that option 57 may say
/// (RFC 2132 §9.10).
const MIN_LIMIT: u16 = 576;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const HOST_NAME: u8 = 12;

/// Flags of option 81 (RFC 4702 §2.1).
mod fqdn {
    /// The server updates the A record.
    pub(super) const S: u8 = 0x01;
    /// The server does otherwise than the client asked.
    pub(super) const O: u8 = 0x02;
    /// The name is in wire format.
    pub(super) const E: u8 = 0x04;
    /// The server updates nothing.
    pub(super) const N: u8 = 0x08;
}

/// The answer to one message.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    /// An OFFER.
    Offer(Grant<'a>),
    /// An ACK; the flag says that it answers a DISCOVER (RFC 4039).
    Ack(Grant<'a>, bool),
    /// The ACK of an INFORM.
    Inform,
    /// A NAK, and why.
    Nak(&'a str),
}

/// What a client is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant<'a> {
    pub(crate) ip: Ipv4Addr,
    pub(crate) seconds: u32,
    pub(crate) hostname: Option<&'a DnsName>,
}

/// Encodes replies for one network.
#[derive(Debug)]
pub(crate) struct Replier {
    /// A reply with everything in it that is the same for all.
    blank: Message,
    table: OptionTable,
    server: Ipv4Addr,
    domain: Option<DnsName>,
    mtu: u16,
    payload: Vec<u8>,
}

impl Replier {
    /// An encoder for the network that `config` describes.
    ///
    /// # Errors
    /// A value that no option can carry.
    pub(crate) fn new(config: &ServerConfig) -> EncodeResult<Self> {
        // Draws a random transaction number, which each reply replaces by its client's.
        let mut blank = Message::default();
        blank.set_opcode(Opcode::BootReply);
        if let Some(boot) = &config.boot {
            blank.set_siaddr(boot.server);
            // With room for the NUL; a longer path goes into option 67 alone.
            if boot.file.len() < 128 {
                blank.set_fname(boot.file.as_bytes());
            }
        }
        Ok(Self {
            blank,
            table: OptionTable::new(config)?,
            server: config.server,
            domain: config.domain.clone(),
            mtu: config.mtu,
            payload: Vec::with_capacity(usize::from(MIN_LIMIT)),
        })
    }

    /// The message that gives `reply` to the client that said `to`.
    ///
    /// # Errors
    /// A value that no option can carry.
    pub(crate) fn encode(&mut self, to: &ClientMessage, reply: &Reply<'_>) -> EncodeResult<&[u8]> {
        let limit = to.max_size.unwrap_or(MIN_LIMIT).clamp(MIN_LIMIT, self.mtu.max(MIN_LIMIT));
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let mut writer = Writer {
            out: Encoder::new(&mut payload),
            limit: usize::from(limit) - IP_OVERHEAD,
            written: [false; 256],
        };
        let result = self.write(&mut writer, to, reply);
        self.payload = payload;
        result.map(|()| self.payload.as_slice())
    }

    fn write(
        &self,
        writer: &mut Writer<'_>,
        to: &ClientMessage,
        reply: &Reply<'_>,
    ) -> EncodeResult<()> {
        self.header(to, reply).encode(&mut writer.out)?;
        // What comes last must fit whatever else does: options 61 and 82, and the end.
        let echoed = |option: &Option<Vec<u8>>| option.as_ref().map_or(0, |bytes| bytes.len() + 2);
        writer.limit -= echoed(&to.client_id) + echoed(&to.relay_info) + 1;

        let kind = match reply {
            Reply::Offer(_) => MessageType::Offer,
            Reply::Ack(..) | Reply::Inform => MessageType::Ack,
            Reply::Nak(_) => MessageType::Nak,
        };
        writer.option(&DhcpOption::MessageType(kind))?;
        writer.option(&DhcpOption::ServerIdentifier(self.server))?;
        match reply {
            Reply::Offer(grant) => self.grant(writer, to, grant)?,
            Reply::Ack(grant, rapid) => {
                if *rapid {
                    // RFC 4039 §3.1
                    writer.option(&DhcpOption::RapidCommit)?;
                }
                self.grant(writer, to, grant)?;
            }
            // RFC 2131 §4.3.5: neither lease times nor an address.
            Reply::Inform => self.parameters(writer, to, None)?,
            // RFC 2131 §4.3.1, table 3: nothing but the reason.
            Reply::Nak(text) => writer.option(&DhcpOption::Message((*text).to_owned()))?,
        }

        // RFC 6842 §3: in every reply, NAKs included.
        if let Some(id) = &to.client_id {
            encode_long_opt_bytes(OptionCode::ClientIdentifier, id, &mut writer.out)?;
        }
        // RFC 3046 §2.2: unchanged, and the last option before the end.
        if let Some(info) = &to.relay_info {
            encode_long_opt_bytes(OptionCode::RelayAgentInformation, info, &mut writer.out)?;
        }
        DhcpOption::End.encode(&mut writer.out)?;
        let padding = MIN_MESSAGE.saturating_sub(writer.out.len_filled());
        writer.out.write_slice(&[0; MIN_MESSAGE][..padding])
    }

    /// The fixed fields, as RFC 2131 §4.3.1, table 3 has them.
    fn header(&self, to: &ClientMessage, reply: &Reply<'_>) -> Message {
        let mut message = self.blank.clone();
        let mut flags =
            if to.broadcast { Flags::default().set_broadcast() } else { Flags::default() };
        match reply {
            Reply::Offer(grant) => {
                message.set_yiaddr(grant.ip);
            }
            Reply::Ack(grant, _) => {
                message.set_yiaddr(grant.ip).set_ciaddr(to.ciaddr);
            }
            Reply::Inform => {
                message.set_ciaddr(to.ciaddr);
            }
            Reply::Nak(_) => {
                message.set_siaddr(Ipv4Addr::UNSPECIFIED).clear_fname();
                // RFC 2131 §4.3.2: the relay must broadcast it, because the client may not have
                // the address that it asked for.
                if to.is_relayed() {
                    flags = flags.set_broadcast();
                }
            }
        }
        message
            .set_xid(to.xid)
            .set_flags(flags)
            .set_giaddr(to.giaddr)
            .set_chaddr(&to.client.mac.octets());
        message
    }

    fn grant(
        &self,
        writer: &mut Writer<'_>,
        to: &ClientMessage,
        grant: &Grant<'_>,
    ) -> EncodeResult<()> {
        writer.option(&DhcpOption::AddressLeaseTime(grant.seconds))?;
        // RFC 2131 §4.4.5: a half, and seven eighths. For ever is for ever (RFC 2131 §3.3).
        let (half, most) = match grant.seconds {
            u32::MAX => (u32::MAX, u32::MAX),
            seconds => (seconds / 2, seconds - seconds / 8),
        };
        writer.option(&DhcpOption::Renewal(half))?;
        writer.option(&DhcpOption::Rebinding(most))?;
        self.parameters(writer, to, grant.hostname)
    }

    /// The options that the client asked for, in its order (RFC 2132 §9.8). What no longer fits
    /// is left out, so the client decides what that is.
    fn parameters(
        &self,
        writer: &mut Writer<'_>,
        to: &ClientMessage,
        hostname: Option<&DnsName>,
    ) -> EncodeResult<()> {
        let wanted = to.parameters.as_deref().unwrap_or(&UNASKED);
        // An address is of no use without its mask, asked for or not.
        if !wanted.contains(&SUBNET_MASK) {
            self.parameter(writer, SUBNET_MASK, hostname)?;
        }
        for &code in wanted {
            if code == ROUTER {
                // RFC 2132 §3.3: the mask comes before the routers.
                self.parameter(writer, SUBNET_MASK, hostname)?;
            }
            self.parameter(writer, code, hostname)?;
        }
        // RFC 4702 §4: one who sends a name learns what became of it.
        if let (Some(asked), Some(name)) = (to.fqdn, hostname) {
            writer.raw(OptionCode::ClientFQDN, &self.fqdn(asked, name))?;
        }
        Ok(())
    }

    fn parameter(
        &self,
        writer: &mut Writer<'_>,
        code: u8,
        hostname: Option<&DnsName>,
    ) -> EncodeResult<()> {
        if code == HOST_NAME
            && let Some(name) = hostname
        {
            return writer.raw(OptionCode::Hostname, name.as_str().as_bytes());
        }
        match self.table.get(code) {
            Some(encoded) => writer.encoded(code, encoded),
            None => Ok(()),
        }
    }

    /// The value of option 81 that answers a client that sent `asked` and got `name`.
    fn fqdn(&self, asked: Fqdn, name: &DnsName) -> Vec<u8> {
        // We always serve the name; a client that wants nobody to is told so (RFC 4702 §4).
        let mut flags = asked.flags & (fqdn::E | fqdn::N);
        if flags & fqdn::N == 0 {
            flags |= fqdn::S;
        }
        if (flags ^ asked.flags) & fqdn::S != 0 {
            flags |= fqdn::O;
        }
        // RFC 4702 §2.2: the two codes that nobody uses any more are 255 from a server.
        let mut value = vec![flags, 255, 255];
        let domain = self.domain.as_ref().map_or("", DnsName::as_str);
        let labels = name.as_str().split('.').chain(domain.split('.')).filter(|l| !l.is_empty());
        if flags & fqdn::E != 0 {
            for label in labels {
                value.extend(u8::try_from(label.len()));
                value.extend(label.bytes());
            }
            value.push(0);
        } else {
            value.extend(labels.collect::<Vec<_>>().join(".").bytes());
        }
        value
    }
}

/// Writes options as far as they fit, each once.
struct Writer<'a> {
    out: Encoder<'a>,
    /// Bytes that the message may have.
    limit: usize,
    written: [bool; 256],
}

impl Writer<'_> {
    /// Writes an option that every reply of its kind has.
    fn option(&mut self, option: &DhcpOption) -> EncodeResult<()> {
        self.written[usize::from(u8::from(OptionCode::from(option)))] = true;
        option.encode(&mut self.out)
    }

    fn raw(&mut self, code: OptionCode, value: &[u8]) -> EncodeResult<()> {
        // Each 255 bytes have a header of their own (RFC 3396 §5).
        let length = value.len() + 2 * value.len().div_ceil(255);
        if self.admits(code.into(), length) {
            encode_long_opt_bytes(code, value, &mut self.out)?;
        }
        Ok(())
    }

    fn encoded(&mut self, code: u8, bytes: &[u8]) -> EncodeResult<()> {
        if self.admits(code, bytes.len()) { self.out.write_slice(bytes) } else { Ok(()) }
    }

    fn admits(&mut self, code: u8, length: usize) -> bool {
        let written = &mut self.written[usize::from(code)];
        let admits = !*written && self.out.len_filled() + length <= self.limit;
        *written |= admits;
        admits
    }
}
