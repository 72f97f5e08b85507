//! What a client is told: the header by `dhcproto`, the options in the order in which the
//! client asked for them, within the size that it takes.

use std::net::Ipv4Addr;

use dhcproto::v4::{
    DhcpOption, EncodeResult, Flags, Message, MessageType, Opcode, OptionCode,
    encode_long_opt_bytes,
};
use dhcproto::{Encodable, Encoder};
use vnet_types::{DhcpOptions, DnsName, Firmware};

use crate::config::{Boot, ServerConfig};
use crate::frame::IP_OVERHEAD;
use crate::message::{ClientMessage, Fqdn};
use crate::options::{OptionTable, UNASKED, with_default_route};

/// Bytes in the smallest message: clients that know BOOTP drop shorter ones (RFC 1542 §2.1).
const MIN_MESSAGE: usize = 300;
/// Bytes of IP that every client takes (RFC 2131 §2), and the least that option 57 may say
/// (RFC 2132 §9.10).
const MIN_LIMIT: u16 = 576;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const HOST_NAME: u8 = 12;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const TFTP_SERVER_NAME: u8 = 66;
const BOOT_FILE: u8 = 67;
const TFTP_SERVERS: u8 = 150;

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
    Offer(Grant),
    /// An ACK; the flag says that it answers a DISCOVER (RFC 4039).
    Ack(Grant, bool),
    /// The ACK of an INFORM.
    Inform,
    /// A NAK, and why.
    Nak(&'a str),
}

/// What a client is given.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) ip: Ipv4Addr,
    pub(crate) seconds: u32,
    pub(crate) hostname: Option<DnsName>,
}

/// What is one client's alone.
#[derive(Debug, Clone, Copy, Default)]
struct Own<'a> {
    hostname: Option<&'a DnsName>,
    /// Those of its reservation.
    options: Option<&'a DhcpOptions>,
    boot: Option<BootFrom<'a>>,
}

/// What a client boots from.
#[derive(Debug, Clone, Copy)]
enum BootFrom<'a> {
    /// A path on a TFTP server.
    Tftp(Ipv4Addr, &'a str),
    /// A URL.
    Http(&'a str),
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
    router: Option<Ipv4Addr>,
    boot: Option<Boot>,
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
        Ok(Self {
            blank,
            table: OptionTable::new(config)?,
            server: config.server,
            domain: config.domain.clone(),
            mtu: config.mtu,
            router: config.routers.first().copied(),
            boot: config.boot.clone(),
            payload: Vec::with_capacity(usize::from(MIN_LIMIT)),
        })
    }

    /// The message that gives `reply` to the client that said `to`.
    ///
    /// # Errors
    /// A value that no option can carry.
    pub(crate) fn encode(
        &mut self,
        to: &ClientMessage,
        options: Option<&DhcpOptions>,
        reply: &Reply<'_>,
    ) -> EncodeResult<&[u8]> {
        // RFC 3046 §2.2: the relay takes its option off again before the client gets the rest.
        let relayed =
            to.relay_info.as_ref().map_or(0, |info| u16::try_from(info.len() + 2).unwrap_or(0));
        let link = self.mtu.max(MIN_LIMIT);
        let limit = to.max_size.unwrap_or(MIN_LIMIT).clamp(MIN_LIMIT, link);
        let limit = limit.saturating_add(relayed).min(link);
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let mut writer = Writer {
            out: Encoder::new(&mut payload),
            limit: usize::from(limit) - IP_OVERHEAD,
            written: [false; 256],
        };
        let hostname = match reply {
            Reply::Offer(grant) | Reply::Ack(grant, _) => grant.hostname.as_ref(),
            Reply::Inform | Reply::Nak(_) => None,
        };
        let own = Own { hostname, options, boot: self.boots_from(to) };
        let result = self.write(&mut writer, to, own, reply);
        self.payload = payload;
        result.map(|()| self.payload.as_slice())
    }

    fn write(
        &self,
        writer: &mut Writer<'_>,
        to: &ClientMessage,
        own: Own<'_>,
        reply: &Reply<'_>,
    ) -> EncodeResult<()> {
        self.header(to, own, reply).encode(&mut writer.out)?;
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
            Reply::Offer(grant) => self.grant(writer, to, own, grant.seconds)?,
            Reply::Ack(grant, rapid) => {
                if *rapid {
                    // RFC 4039 §3.1
                    writer.option(&DhcpOption::RapidCommit)?;
                }
                self.grant(writer, to, own, grant.seconds)?;
            }
            // RFC 2131 §4.3.5: neither lease times nor an address.
            Reply::Inform => self.parameters(writer, to, own)?,
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
    fn header(&self, to: &ClientMessage, own: Own<'_>, reply: &Reply<'_>) -> Message {
        let mut message = self.blank.clone();
        if let Some(BootFrom::Tftp(server, file)) = own.boot {
            message.set_siaddr(server);
            // With room for the NUL; a longer path goes into option 67 alone.
            if file.len() < 128 {
                message.set_fname(file.as_bytes());
            }
        }
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
        own: Own<'_>,
        seconds: u32,
    ) -> EncodeResult<()> {
        writer.option(&DhcpOption::AddressLeaseTime(seconds))?;
        let (renewal, rebinding) = self.times(own, seconds);
        writer.option(&DhcpOption::Renewal(renewal))?;
        writer.option(&DhcpOption::Rebinding(rebinding))?;
        self.parameters(writer, to, own)
    }

    /// When the client is to renew, and when to ask everybody: as the definition says, else after a
    /// half and seven eighths of its lease; one before the other, and both before its end
    /// (RFC 2131 §4.4.5). For ever is for ever (RFC 2131 §3.3).
    fn times(&self, own: Own<'_>, seconds: u32) -> (u32, u32) {
        if seconds == u32::MAX {
            return (u32::MAX, u32::MAX);
        }
        let given = |code| {
            let own = own.options.and_then(|options| options.get(code));
            let all = || self.table.get(code).and_then(|encoded| encoded.get(2..));
            own.or_else(all)?.try_into().ok().map(u32::from_be_bytes)
        };
        let most = seconds - seconds / 8;
        let rebinding = given(REBINDING_TIME).map_or(most, |given| given.min(most));
        let renewal = given(RENEWAL_TIME).unwrap_or(seconds / 2);
        (if renewal < rebinding { renewal } else { rebinding / 2 }, rebinding)
    }

    /// The options that the client asked for, in its order (RFC 2132 §9.8). What no longer fits
    /// is left out, so the client decides what that is.
    fn parameters(
        &self,
        writer: &mut Writer<'_>,
        to: &ClientMessage,
        own: Own<'_>,
    ) -> EncodeResult<()> {
        if let Some(BootFrom::Http(url)) = own.boot {
            // UEFI 2.10 §24.7.3: both, asked for or not, or the firmware takes no notice.
            writer.raw(OptionCode::ClassIdentifier, b"HTTPClient")?;
            writer.raw(OptionCode::BootfileName, url.as_bytes())?;
        }
        let wanted = to.parameters.as_deref().unwrap_or(&UNASKED);
        // An address is of no use without its mask, asked for or not.
        if !wanted.contains(&SUBNET_MASK) {
            self.parameter(writer, SUBNET_MASK, own)?;
        }
        for &code in wanted {
            if code == ROUTER {
                // RFC 2132 §3.3: the mask comes before the routers.
                self.parameter(writer, SUBNET_MASK, own)?;
            }
            self.parameter(writer, code, own)?;
        }
        // RFC 4702 §4: one who sends a name learns what became of it.
        if let (Some(asked), Some(name)) = (to.fqdn, own.hostname) {
            writer.raw(OptionCode::ClientFQDN, &self.fqdn(asked, name))?;
        }
        Ok(())
    }

    fn parameter(&self, writer: &mut Writer<'_>, code: u8, own: Own<'_>) -> EncodeResult<()> {
        if code == HOST_NAME
            && let Some(name) = own.hostname
        {
            return writer.raw(OptionCode::Hostname, name.as_str().as_bytes());
        }
        if let Some(value) = own.options.and_then(|options| options.get(code)) {
            let value = with_default_route(code, value, self.router);
            return if value.is_empty() { Ok(()) } else { writer.raw(code.into(), &value) };
        }
        match (self.table.get(code), own.boot) {
            (Some(encoded), _) => writer.encoded(code, encoded),
            (None, Some(BootFrom::Tftp(server, file))) => match code {
                TFTP_SERVER_NAME => writer.raw(code.into(), server.to_string().as_bytes()),
                TFTP_SERVERS => writer.raw(code.into(), &server.octets()),
                BOOT_FILE if !file.is_empty() => writer.raw(code.into(), file.as_bytes()),
                _ => Ok(()),
            },
            (None, _) => Ok(()),
        }
    }

    /// What a client boots from. One that does not say that it boots may be an old boot ROM: it
    /// gets what is for all.
    fn boots_from(&self, to: &ClientMessage) -> Option<BootFrom<'_>> {
        let boot = self.boot.as_ref()?;
        let firmware = to.firmware.unwrap_or(Firmware::Default);
        let over_http =
            matches!(firmware, Firmware::HttpEfi32 | Firmware::HttpEfi64 | Firmware::HttpArm64);
        match boot.files.get(&firmware) {
            Some(url) if over_http => Some(BootFrom::Http(url)),
            None if over_http => None,
            file => {
                let file = file.or_else(|| boot.files.get(&Firmware::Default));
                Some(BootFrom::Tftp(boot.server, file.map_or("", String::as_str)))
            }
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
