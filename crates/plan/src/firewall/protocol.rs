//! Protocols of IP by their numbers (IANA). By name, nft would have to find them in
//! /etc/protocols, and a bare system has no such file.

use nftables::expr::Expression;

pub(super) const IGMP: Expression<'static> = Expression::Number(2);
pub(super) const TCP: Expression<'static> = Expression::Number(6);
pub(super) const UDP: Expression<'static> = Expression::Number(17);
pub(super) const ICMPV6: Expression<'static> = Expression::Number(58);
