//! Leases from SOLICIT to RELEASE, and what outlives a crash.

use dhcproto::v6::{MessageType, Status};
use vnet_dhcp::v6::{
    Decision, MAX_PER_CARD, Record, Refusal, Reservation, ReservedFor, ServerConfig,
};
use vnet_dhcp::{Choice, Identity, LeaseState};

use super::client::{
    LEASE, Net, Says, config, confirm, decline, duid, ip, mac, rebind, release, renew, request,
    says, solicit,
};

#[test]
fn a_client_obtains_an_address_in_four_messages() {
    let mut net = Net::new();
    let solicited = net.hears(&solicit(1));
    assert_eq!(solicited.option(7), Some(dhcproto::v6::DhcpOption::Preference(255)));
    let offered = solicited.advertised();
    assert!(net.server.config().range.clone().unwrap().contains(&offered));
    assert_eq!(net.server.leases().len(), 0, "an ADVERTISE costs no memory");
    let leased = net.hears(&request(1, &[&offered.to_string()]));
    assert_eq!(leased.leased(), offered);
    let lease = net.lease(offered).unwrap();
    assert_eq!((&lease.duid, lease.mac, lease.iaid), (&duid(1), Some(mac(1)), 1));
    assert_eq!(lease.expires, net.now.unix + u64::from(LEASE));
}

#[test]
fn rapid_commit_leases_in_two_messages() {
    // RFC 9915 §18.3.1: the option comes back, and the lease is stored.
    let mut net = Net::new();
    let heard = net.hears(&solicit(1).rapid());
    heard.leased();
    assert!(heard.option(14).is_some());
    // Where it is not configured, a SOLICIT is answered as any other.
    let mut net = Net::with(ServerConfig { rapid_commit: false, ..config() });
    net.hears(&solicit(1).rapid()).advertised();
}

#[test]
fn a_client_gets_the_same_address_again() {
    let mut net = Net::new();
    let first = net.obtain(1);
    net.hears(&release(1, &[&first.to_string()]));
    assert_eq!(net.hears(&solicit(1)).advertised(), first);
    // Even where nothing was kept, as long as it is free.
    let mut other = Net::new();
    assert_eq!(other.obtain(1), first);
}

#[test]
fn clients_and_associations_never_share_an_address() {
    let mut net = Net::with_range("fd00::100", "fd00::103");
    let heard = net.hears(&says(3, 1).for_us().ia(1, &[]).ia(2, &[]));
    let (a, b) = (heard.association(1).0[0].0, heard.association(2).0[0].0);
    assert_ne!(a, b);
    let (c, d) = (net.obtain(2), net.obtain(3));
    let all = std::collections::BTreeSet::from([a, b, c, d]);
    assert_eq!(all.len(), 4);
}

#[test]
fn one_who_wants_an_address_that_is_free_gets_it() {
    let mut net = Net::new();
    let heard = net.hears(&request(1, &["fd00::155"]));
    assert_eq!((heard.leased(), heard.why()), (ip("fd00::155"), Choice::Requested));
    // Somebody else's, the host's, and one outside the range are not given.
    for wanted in ["fd00::155", "fd00::1", "fd00::", "fd00::99"] {
        assert_ne!(net.hears(&request(2, &[wanted])).leased(), ip(wanted));
    }
}

#[test]
fn an_exhausted_range_is_said_to_be() {
    // RFC 9915 §18.3.2, §18.3.9: NoAddrsAvail in the association.
    let mut net = Net::with_range("fd00::100", "fd00::100");
    let first = net.obtain(1);
    for says in [solicit(2), request(2, &[])] {
        let heard = net.hears(&says);
        assert_eq!(heard.association(1), (vec![], Some(Status::NoAddrsAvail)));
        assert_eq!(heard.persist, []);
    }
    // Once the lease has ended, its address is another's.
    net.pass(u64::from(LEASE));
    let heard = net.hears(&request(2, &[]));
    assert_eq!((heard.leased(), heard.why()), (first, Choice::LeastRecent));
    // And the first client hears that it has none any longer.
    let heard = net.hears(&renew(1, &[&first.to_string()]));
    assert_eq!(heard.association(1).1, Some(Status::NoBinding));
}

#[test]
fn prefixes_and_temporary_addresses_are_refused() {
    let mut net = Net::new();
    let says = says(3, 1).for_us().ia(1, &[]).association(25, 7, &[]).association(4, 8, &[]);
    let message = net.hears(&says).of_kind(MessageType::Reply);
    let statuses: Vec<_> = message
        .opts()
        .iter()
        .filter_map(|option| match option {
            dhcproto::v6::DhcpOption::IAPD(ia) => Some((ia.id, ia.opts.clone())),
            dhcproto::v6::DhcpOption::IATA(ia) => Some((ia.id, ia.opts.clone())),
            _ => None,
        })
        .map(|(id, options)| match options.iter().next() {
            Some(dhcproto::v6::DhcpOption::StatusCode(code)) => (id, code.status),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(statuses, [(8, Status::NoAddrsAvail), (7, Status::NoPrefixAvail)]);
}

#[test]
fn a_request_for_another_links_address_is_not_on_link() {
    // RFC 9915 §18.3.2
    let mut net = Net::new();
    let heard = net.hears(&request(1, &["fd00:0:0:1::100"]));
    assert_eq!(heard.association(1), (vec![], Some(Status::NotOnLink)));
    assert_eq!(heard.persist, []);
}

#[test]
fn confirm_says_whether_addresses_fit_the_link() {
    // RFC 9915 §18.3.3
    let mut net = Net::new();
    let status = |net: &mut Net, has: &[&str]| net.hears(&confirm(1, has)).status();
    assert_eq!(status(&mut net, &["fd00::150"]), Some(Status::Success));
    assert_eq!(status(&mut net, &["fd00::150", "fd01::1"]), Some(Status::NotOnLink));
    net.hears(&confirm(1, &[])).silent();
}

#[test]
fn a_lease_is_renewed_by_its_server_and_rebound_by_any() {
    // RFC 9915 §18.3.4, §18.3.5
    let mut net = Net::new();
    let first = net.obtain(1);
    for (wait, says) in [(1800, renew as fn(u8, &[&str]) -> Says), (2900, rebind)] {
        net.pass(wait);
        let heard = net.hears(&says(1, &[&first.to_string()]));
        assert_eq!((heard.leased(), heard.why()), (first, Choice::Current));
        assert_eq!(net.lease(first).unwrap().expires, net.now.unix + u64::from(LEASE));
    }
}

#[test]
fn what_a_client_may_not_use_any_longer_gets_no_lifetime() {
    // RFC 9915 §18.3.4
    let mut net = Net::new();
    let own = net.obtain(1);
    let heard = net.hears(&renew(1, &["fd00:0:0:9::5", &own.to_string()]));
    assert_eq!(heard.association(1).0, [(own, LEASE), (ip("fd00:0:0:9::5"), 0)]);
    // No lease, and another link's address: nothing but the end of it.
    let heard = net.hears(&rebind(2, &["fd00:0:0:9::5"]));
    assert_eq!(heard.association(1), (vec![(ip("fd00:0:0:9::5"), 0)], None));
}

#[test]
fn a_lost_lease_goes_on_as_long_as_nobody_else_has_the_address() {
    let mut net = Net::new();
    let heard = net.hears(&renew(1, &["fd00::1aa"]));
    assert_eq!(heard.leased(), ip("fd00::1aa"));
    let heard = net.hears(&renew(2, &["fd00::1aa"]));
    assert_eq!(heard.association(1), (vec![], Some(Status::NoBinding)));
    assert_eq!(heard.persist, []);
}

#[test]
fn a_released_address_is_free() {
    // RFC 9915 §18.3.7
    let mut net = Net::with_range("fd00::100", "fd00::100");
    let first = net.obtain(1);
    let heard = net.hears(&release(1, &[&first.to_string()]));
    assert_eq!(heard.status(), Some(Status::Success));
    assert!(matches!(&heard.persist[..], [Record::Put(l)] if l.state == LeaseState::Released));
    assert_eq!(net.obtain(2), first);
    // What is unknown is said to be, and nobody gives away another's.
    let heard = net.hears(&release(3, &[&first.to_string()]));
    assert_eq!(heard.status(), Some(Status::Success));
    assert_eq!(heard.association(1), (vec![], Some(Status::NoBinding)));
    assert!(net.lease(first).unwrap().is_live(net.now.unix));
}

#[test]
fn a_declined_address_rests() {
    // RFC 9915 §18.3.8
    let mut net = Net::with_range("fd00::100", "fd00::101");
    let bad = net.obtain(1);
    let heard = net.hears(&decline(1, &[&bad.to_string()]));
    assert_eq!(heard.status(), Some(Status::Success));
    assert_eq!(heard.event.decision, Decision::Declined { ips: vec![bad] });
    let other = net.obtain(1);
    assert_ne!(other, bad);
    assert_eq!(net.hears(&solicit(2)).association(1).1, Some(Status::NoAddrsAvail));
    // The rest outlives the server, and ends.
    net.crash();
    assert_eq!(net.hears(&solicit(2)).association(1).1, Some(Status::NoAddrsAvail));
    net.pass(600);
    assert_eq!(net.obtain(2), bad);
}

#[test]
fn one_guest_cannot_decline_all_addresses_away() {
    let mut net = Net::with_range("fd00::100", "fd00::10f");
    for _ in 0..40 {
        let ip = net.obtain(1);
        net.hears(&decline(1, &[&ip.to_string()]));
        net.pass(1);
    }
    let resting = net.server.leases().filter(|l| l.state == LeaseState::Declined).count();
    assert_eq!(resting, 2, "an eighth of the range");
}

fn reserved(client: ReservedFor, address: &str) -> ServerConfig {
    let hostname = Some("db".parse().unwrap());
    ServerConfig {
        reservations: vec![Reservation { client, ip: ip(address), hostname }],
        ..config()
    }
}

#[test]
fn a_reservation_holds_by_card_or_identifier() {
    for client in [ReservedFor::Card(mac(1)), ReservedFor::Duid(duid(1))] {
        let mut net = Net::with(reserved(client, "fd00::77"));
        let heard = net.hears(&request(2, &["fd00::77"]));
        assert_ne!(heard.leased(), ip("fd00::77"), "it is another's");
        let heard = net.hears(&request(1, &[]));
        assert_eq!((heard.leased(), heard.why()), (ip("fd00::77"), Choice::Reserved));
        assert_eq!(net.lease(ip("fd00::77")).unwrap().hostname, Some("db".parse().unwrap()));
    }
}

#[test]
fn the_card_is_found_without_a_frame() {
    // From the identifier, and from the address that the client made of its card.
    let mut net = Net::with(reserved(ReservedFor::Card(mac(1)), "fd00::77"));
    let no_frame = Says { mac: None, ..request(1, &[]) };
    assert_eq!(net.hears(&no_frame).leased(), ip("fd00::77"));
    let mut net = Net::with(reserved(ReservedFor::Card(mac(1)), "fd00::77"));
    let uuid = Says { mac: None, src: ip("fe80::5054:ff:fe00:1"), ..request(1, &[]) }.without(1);
    assert_eq!(net.hears(&uuid.option(1, &[0, 4, 9, 9, 9])).leased(), ip("fd00::77"));
}

#[test]
fn firmware_and_system_share_the_cards_reservation() {
    let mut net = Net::with(reserved(ReservedFor::Card(mac(1)), "fd00::77"));
    assert_eq!(net.hears(&request(1, &[])).leased(), ip("fd00::77"));
    let system = request(1, &[]).without(1).option(1, &[0, 4, 1, 2, 3, 4]);
    assert_eq!(net.hears(&system).leased(), ip("fd00::77"));
    // Two associations of one client do not.
    let both = system.ia(2, &[]);
    let heard = net.hears(&both);
    assert_eq!(heard.association(1).0[0].0, ip("fd00::77"));
    assert_ne!(heard.association(2).0[0].0, ip("fd00::77"));
}

#[test]
fn a_guest_moves_to_a_reservation_that_was_made_while_it_ran() {
    let mut net = Net::new();
    let old = net.obtain(1);
    net.server.reconfigure(reserved(ReservedFor::Card(mac(1)), "fd00::77"));
    let heard = net.hears(&renew(1, &[&old.to_string()]));
    assert_eq!(heard.association(1).0, [(ip("fd00::77"), LEASE), (old, 0)]);
    assert!(heard.persist.contains(&Record::Forget(old)));
    net.crash();
}

#[test]
fn an_address_out_of_a_changed_range_is_replaced() {
    let mut net = Net::new();
    let old = net.obtain(1);
    let range = Some(ip("fd00::1000")..=ip("fd00::1fff"));
    net.server.reconfigure(ServerConfig { range, ..config() });
    let heard = net.hears(&renew(1, &[&old.to_string()]));
    let (addresses, _) = heard.association(1);
    assert_eq!(addresses[1], (old, 0));
    assert!(addresses[0].0 >= ip("fd00::1000") && addresses[0].1 == LEASE);
}

#[test]
fn where_identifiers_are_not_trusted_nobody_takes_anothers_lease() {
    let mut net = Net::with(ServerConfig { identity: Identity::Hardware, ..config() });
    let victim = net.obtain(1);
    let text = victim.to_string();
    let forge = |says: Says| Says { mac: Some(mac(9)), src: ip("fe80::9"), ..says };
    net.hears(&forge(release(1, &[&text])));
    net.hears(&forge(decline(1, &[&text])));
    assert_ne!(net.hears(&forge(request(1, &[&text]))).leased(), victim);
    let lease = net.lease(victim).unwrap();
    assert!(lease.is_live(net.now.unix) && lease.mac == Some(mac(1)));
    assert_eq!(net.hears(&renew(1, &[&text])).leased(), victim);
}

#[test]
fn one_card_gets_a_bounded_number_of_addresses() {
    let mut net = Net::new();
    let identifier = |number: u32| [&[0, 4][..], &number.to_be_bytes()].concat();
    let ask = |number: u32| request(1, &[]).without(1).option(1, &identifier(number));
    for number in 0..MAX_PER_CARD as u32 {
        net.hears(&ask(number)).leased();
    }
    let heard = net.hears(&ask(999));
    assert_eq!(heard.association(1).1, Some(Status::NoAddrsAvail));
    assert!(heard.event.to_string().contains(&Refusal::TooManyForOne.to_string()));
    net.hears(&ask(3)).leased();
    // Others are not concerned, and an ended lease makes room for a new one.
    net.hears(&request(2, &[])).leased();
    net.pass(u64::from(LEASE));
    net.hears(&ask(999)).leased();
    assert_eq!(net.server.leases().len(), MAX_PER_CARD + 1);
    net.crash();
}

#[test]
fn leases_outlive_a_crash() {
    let mut net = Net::new();
    let mut own = Vec::new();
    for number in 1..20 {
        own.push(net.obtain(number));
    }
    net.hears(&release(3, &[&own[2].to_string()]));
    net.hears(&decline(4, &[&own[3].to_string()]));
    net.crash();
    for number in 5..20_usize {
        let text = own[number - 1].to_string();
        let heard = net.hears(&renew(number as u8, &[&text]));
        assert_eq!((heard.leased(), heard.why()), (own[number - 1], Choice::Current));
    }
}

#[test]
fn leases_outside_a_changed_prefix_are_forgotten() {
    let mut net = Net::new();
    let old = net.obtain(1);
    net.server.reconfigure(ServerConfig {
        prefix: "fd01::/64".parse().unwrap(),
        address: ip("fd01::1"),
        range: Some(ip("fd01::100")..=ip("fd01::1ff")),
        ..config()
    });
    assert_eq!(net.server.leases().len(), 0);
    let heard = net.hears(&Says { src: ip("fe80::1"), ..renew(1, &[&old.to_string()]) });
    assert_eq!(heard.association(1), (vec![(old, 0)], None));
}
