//! What a client is told: a DHCPv6 message in bytes.

use std::net::Ipv6Addr;

use vnet_types::DnsName;

use super::config::ServerConfig;
use super::event::Refusal;
use super::message::{ClientMessage, Fqdn, IaKind, Kind, code};

/// The highest preference: a client takes the first answer, and does not wait for others
/// (RFC 9915 §18.2.1).
const PREFERENCE: u8 = 255;
/// The sub-option of option 56 with a server's address (RFC 5908 §4.1).
const NTP_ADDRESS: u16 = 1;

/// Flags of option 39 (RFC 4704 §4.1).
mod fqdn {
    /// The server updates the AAAA record.
    pub(super) const S: u8 = 0x01;
    /// The server does otherwise than the client asked.
    pub(super) const O: u8 = 0x02;
    /// The server updates nothing.
    pub(super) const N: u8 = 0x04;
}

/// Codes of the status option (RFC 9915 §21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    NoPrefixAvail = 6,
}

/// The type of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// ADVERTISE.
    Advertise,
    /// REPLY.
    Reply,
    /// REPLY to a SOLICIT.
    RapidReply,
}

/// What one association is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IaReply {
    pub(super) kind: IaKind,
    pub(super) iaid: u32,
    /// The address that it has, or the reason why it has none.
    pub(super) given: Result<Ipv6Addr, Refusal>,
    /// Addresses that it must not use any longer.
    pub(super) withdrawn: Vec<Ipv6Addr>,
}

/// A reply.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) form: Form,
    pub(super) status: Option<(Status, &'a str)>,
    pub(super) ias: &'a [IaReply],
    pub(super) hostname: Option<&'a DnsName>,
    /// Whether the options that the client asked for come along.
    pub(super) parameters: bool,
}

/// Appends options to a message.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn bytes(&mut self, code: u16, value: &[u8]) {
        self.option(code, |writer| writer.0.extend(value));
    }

    fn number(&mut self, code: u16, value: u32) {
        self.bytes(code, &value.to_be_bytes());
    }

    fn addresses(&mut self, code: u16, all: &[Ipv6Addr]) {
        if !all.is_empty() {
            self.option(code, |writer| writer.0.extend(all.iter().flat_map(Ipv6Addr::octets)));
        }
    }

    fn name(&mut self, name: &DnsName) {
        for label in name.as_str().split('.').filter(|label| !label.is_empty()) {
            self.0.extend(u8::try_from(label.len()));
            self.0.extend(label.bytes());
        }
    }

    /// An option whose value `write` appends. One that is longer than an option can be is left
    /// out.
    pub(super) fn option(&mut self, code: u16, write: impl FnOnce(&mut Writer<'_>)) {
        let start = self.0.len();
        self.0.extend(code.to_be_bytes());
        self.0.extend([0; 2]);
        write(&mut Writer(&mut *self.0));
        match u16::try_from(self.0.len() - start - 4) {
            Ok(length) => self.0[start + 2..start + 4].copy_from_slice(&length.to_be_bytes()),
            Err(_) => self.0.truncate(start),
        }
    }

    fn status(&mut self, status: Status, text: &str) {
        self.option(code::STATUS, |writer| {
            writer.0.extend((status as u16).to_be_bytes());
            writer.0.extend(text.bytes());
        });
    }

    fn address(&mut self, ip: Ipv6Addr, seconds: u32) {
        self.option(code::IA_ADDRESS, |writer| {
            writer.0.extend(ip.octets());
            // Preferred as long as valid.
            writer.0.extend(seconds.to_be_bytes());
            writer.0.extend(seconds.to_be_bytes());
        });
    }

    fn ia(&mut self, ia: &IaReply, seconds: u32) {
        let code = match ia.kind {
            IaKind::Addresses => code::IA_NA,
            IaKind::Temporary => code::IA_TA,
            IaKind::Prefixes => code::IA_PD,
        };
        self.option(code, |writer| {
            writer.0.extend(ia.iaid.to_be_bytes());
            if ia.kind != IaKind::Temporary {
                let times = ia.given.map_or((0, 0), |_| renewal_times(seconds));
                writer.0.extend(times.0.to_be_bytes());
                writer.0.extend(times.1.to_be_bytes());
            }
            if let Ok(ip) = ia.given {
                writer.address(ip, seconds);
            }
            for &ip in &ia.withdrawn {
                writer.address(ip, 0);
            }
            if let Err(why) = ia.given
                && let Some(status) = status_of(why)
            {
                writer.status(status, &why.to_string());
            }
        });
    }
}

/// T1 and T2: a half, and four fifths of the preferred lifetime (RFC 9915 §21.4).
fn renewal_times(seconds: u32) -> (u32, u32) {
    match seconds {
        u32::MAX => (u32::MAX, u32::MAX),
        _ => (seconds / 2, seconds - seconds / 5),
    }
}

fn status_of(why: Refusal) -> Option<Status> {
    match why {
        Refusal::Exhausted | Refusal::TooManyForOne | Refusal::NotServed | Refusal::Temporary => {
            Some(Status::NoAddrsAvail)
        }
        Refusal::Prefixes => Some(Status::NoPrefixAvail),
        Refusal::NotOnLink => Some(Status::NotOnLink),
        Refusal::NoBinding => Some(Status::NoBinding),
        // Lifetimes of 0 say it all.
        Refusal::Withdrawn => None,
    }
}

/// Puts the message with `reply` to `message` into `out`, in the place of what was there.
pub(super) fn encode(
    out: &mut Vec<u8>,
    config: &ServerConfig,
    message: &ClientMessage,
    reply: &Reply<'_>,
) {
    out.clear();
    let [_, a, b, c] = message.xid.to_be_bytes();
    out.extend([if reply.form == Form::Advertise { 2 } else { 7 }, a, b, c]);
    let mut writer = Writer(out);
    // RFC 9915 §18.3.9, §18.3.10: in every answer, and the client's where it gave one.
    writer.bytes(code::SERVER_ID, config.duid.as_bytes());
    if let Some(duid) = &message.duid {
        writer.bytes(code::CLIENT_ID, duid.as_bytes());
    }
    match reply.form {
        Form::Advertise => writer.bytes(code::PREFERENCE, &[PREFERENCE]),
        // RFC 9915 §18.3.1
        Form::RapidReply => writer.bytes(code::RAPID_COMMIT, &[]),
        Form::Reply => {}
    }
    if let Some((status, text)) = reply.status {
        writer.status(status, text);
    }
    for ia in reply.ias {
        writer.ia(ia, config.lease_seconds);
    }
    if reply.parameters {
        parameters(&mut writer, config, message);
        if let (Some(asked), Some(name)) = (&message.fqdn, reply.hostname) {
            client_fqdn(&mut writer, config, asked, name);
        }
    }
}

/// The options that the client asked for (RFC 9915 §18.3.9, §21.7).
fn parameters(writer: &mut Writer<'_>, config: &ServerConfig, message: &ClientMessage) {
    // One who does not say what it wants gets what everybody needs.
    let wants = |code| message.wants(code);
    let usual = |code| message.requested.is_empty() || wants(code);
    if usual(code::DNS_SERVERS) {
        writer.addresses(code::DNS_SERVERS, &config.dns_servers);
    }
    if usual(code::DOMAIN_SEARCH) && !config.search.is_empty() {
        writer.option(code::DOMAIN_SEARCH, |writer| {
            for name in &config.search {
                writer.name(name);
                writer.0.push(0);
            }
        });
    }
    if wants(code::SNTP_SERVERS) {
        writer.addresses(code::SNTP_SERVERS, &config.ntp_servers);
    }
    if wants(code::NTP_SERVER) {
        // RFC 5908 §4: an option a server.
        for server in &config.ntp_servers {
            writer.option(code::NTP_SERVER, |writer| {
                writer.bytes(NTP_ADDRESS, &server.octets());
            });
        }
    }
    // RFC 9915 §21.23: in answers to INFORMATION-REQUEST alone.
    if let Some(seconds) = config.refresh_seconds
        && message.kind == Kind::InformationRequest
        && usual(code::REFRESH_TIME)
    {
        writer.number(code::REFRESH_TIME, seconds.max(600));
    }
    if let Some(seconds) = config.max_retry_seconds {
        for code in [code::SOL_MAX_RT, code::INF_MAX_RT].into_iter().filter(|&code| wants(code)) {
            writer.number(code, seconds.clamp(60, 86_400));
        }
    }
}

/// Option 39, which tells a client what became of the name that it asked for (RFC 4704 §6).
fn client_fqdn(writer: &mut Writer<'_>, config: &ServerConfig, asked: &Fqdn, name: &DnsName) {
    // We always serve the name; a client that wants nobody to is told so.
    let mut flags = asked.flags & fqdn::N;
    if flags == 0 {
        flags |= fqdn::S;
    }
    if (flags ^ asked.flags) & fqdn::S != 0 {
        flags |= fqdn::O;
    }
    writer.option(code::CLIENT_FQDN, |writer| {
        writer.0.push(flags);
        writer.name(name);
        if let Some(domain) = &config.domain {
            writer.name(domain);
        }
        writer.0.push(0);
    });
}
