//! What a client gets in each of its states (RFC 2131 §4.3 and §4.4).

mod common;

use common::*;
use dhcproto::v4::MessageType;
use vnet_dhcp::{
    Choice, Decision, Identity, LeaseState, MessageError, NakReason, Record, ServerConfig, Silence,
};

#[test]
fn a_new_client_gets_an_address_and_its_record_is_stored() {
    let mut net = Net::new();
    let address = net.dora(&discover(1).named("web"));
    let lease = net.lease(address).unwrap();
    assert_eq!((lease.mac, lease.state), (mac(1), LeaseState::Bound));
    assert_eq!(lease.expires, START + u64::from(LEASE));
    assert_eq!(lease.hostname.as_ref().unwrap().as_str(), "web");
    assert!(lease.is_live(START) && !lease.is_live(START + u64::from(LEASE)));
}

#[test]
fn a_client_is_offered_the_same_address_again_and_again() {
    let mut net = Net::new();
    let first = net.hears(&discover(1));
    assert_eq!(first.why(), Choice::Unused);
    let second = net.hears(&discover(1));
    assert_eq!((second.offered(), second.why()), (first.offered(), Choice::Offered));
    // Nothing of it is remembered, yet it comes out the same.
    assert_eq!(Net::new().hears(&discover(1)).offered(), first.offered());
}

#[test]
fn clients_that_discover_one_after_the_other_are_offered_different_addresses() {
    let mut net = Net::new();
    let mut offered: Vec<_> = (1..=253).map(|n| net.hears(&discover(n)).offered()).collect();
    offered.sort();
    offered.dedup();
    assert_eq!(offered.len(), 253);
    assert_eq!(net.hears(&discover(254)).silent(), Silence::Exhausted);
}

#[test]
fn an_offer_that_nobody_takes_ends() {
    let mut net = Net::with_range("192.168.122.9-192.168.122.9");
    assert_eq!(net.hears(&discover(1)).offered(), ip(9));
    assert_eq!(net.hears(&discover(2)).silent(), Silence::Exhausted);
    net.pass(20);
    assert_eq!(net.hears(&discover(2)).offered(), ip(9));
    assert_eq!(net.hears(&select(1, ip(9))).refused(), NakReason::OfferedToOther);
    assert_eq!(net.hears(&select(2, ip(9))).acked(), ip(9));
}

#[test]
fn a_late_request_is_granted_while_the_address_is_free() {
    let mut net = Net::new();
    let offered = net.hears(&discover(1)).offered();
    net.pass(300);
    assert_eq!(net.hears(&select(1, offered)).acked(), offered);
}

#[test]
fn a_client_that_asks_for_a_free_address_is_offered_it() {
    let mut net = Net::new();
    let answer = net.hears(&discover(1).option(50, &ip(77).octets()));
    assert_eq!((answer.offered(), answer.why()), (ip(77), Choice::Requested));
    let taken = net.hears(&discover(2).option(50, &ip(77).octets()));
    assert_ne!(taken.offered(), ip(77));
    for wrong in [ip(0), ip(1), ip(255), [10, 0, 0, 1].into(), ANY] {
        let answer = net.hears(&discover(3).option(50, &wrong.octets()));
        assert_ne!(answer.offered(), wrong);
    }
}

#[test]
fn a_client_that_chooses_another_server_frees_its_offer() {
    let mut net = Net::with_range("192.168.122.9-192.168.122.9");
    net.hears(&discover(1)).offered();
    let other = ip(200);
    let choice =
        says(MessageType::Request, 1).option(50, &[10, 0, 0, 1]).option(54, &other.octets());
    assert_eq!(net.hears(&choice).silent(), Silence::OtherServer { server: other });
    assert_eq!(net.hears(&discover(2)).offered(), ip(9));
}

#[test]
fn a_request_for_what_cannot_be_given_is_refused_with_the_reason() {
    let mut net = Net::with(ServerConfig {
        reservations: vec![reservation(9, 50, None)],
        range: "192.168.122.2-192.168.122.99".parse().unwrap(),
        ..config()
    });
    let taken = net.dora(&discover(1));
    let ask = |net: &mut Net, ip| net.hears(&select(2, ip)).refused();
    assert_eq!(ask(&mut net, taken), NakReason::InUse);
    assert_eq!(ask(&mut net, ip(50)), NakReason::ReservedForOther);
    assert_eq!(ask(&mut net, ip(100)), NakReason::NotServed);
    assert_eq!(ask(&mut net, SERVER), NakReason::NotServed);
    assert_eq!(ask(&mut net, [10, 0, 0, 9].into()), NakReason::WrongNetwork);
}

#[test]
fn a_reservation_comes_before_everything_else() {
    let mut net = Net::with(ServerConfig {
        reservations: vec![reservation(1, 50, Some("db"))],
        range: "192.168.122.2-192.168.122.9".parse().unwrap(),
        ..config()
    });
    let answer = net.hears(&discover(1).option(50, &ip(5).octets()));
    assert_eq!((answer.offered(), answer.why()), (ip(50), Choice::Reserved));
    assert_eq!(
        answer.event.to_string(),
        "DISCOVER of 52:54:00:00:00:01: offered 192.168.122.50 because it is reserved for the client"
    );
    assert_eq!(net.dora(&discover(1).named("other")), ip(50));
    assert_eq!(net.lease(ip(50)).unwrap().hostname.as_ref().unwrap().as_str(), "db");
}

#[test]
fn a_reservation_holds_under_each_identifier_of_its_card() {
    let reservations = vec![reservation(1, 50, None)];
    let mut net = Net::with(ServerConfig { reservations, ..config() });
    assert_eq!(net.dora(&discover(1)), ip(50));
    assert_eq!(net.dora(&discover(1).id(&[0xff, 1, 2])), ip(50));
    assert_eq!(net.server.leases().len(), 1);
}

#[test]
fn a_reservation_made_while_its_guest_runs_takes_effect_when_it_renews() {
    let mut net = Net::new();
    let before = net.dora(&discover(1));
    net.server
        .reconfigure(ServerConfig { reservations: vec![reservation(1, 50, None)], ..config() })
        .unwrap();
    let why = net.hears(&renew(1, before)).refused();
    assert_eq!(why, NakReason::HasReservation { ip: ip(50) });
    assert_eq!(net.dora(&discover(1)), ip(50));
    assert!(net.lease(before).is_none(), "one client, one address");
}

#[test]
fn a_reserved_address_that_another_guest_still_has_waits() {
    let mut net = Net::new();
    let held = net.dora(&discover(2));
    let reserved = vnet_types::Reservation::new(mac(1), held);
    net.server.reconfigure(ServerConfig { reservations: vec![reserved], ..config() }).unwrap();
    let meanwhile = net.dora(&discover(1));
    assert_ne!(meanwhile, held);
    assert_eq!(net.hears(&renew(1, meanwhile)).acked(), meanwhile);
    assert_eq!(net.hears(&renew(2, held)).refused(), NakReason::ReservedForOther);
    net.pass(u64::from(LEASE));
    assert_eq!(net.dora(&discover(1)), held);
}

#[test]
fn a_rebooted_client_keeps_its_address() {
    let mut net = Net::new();
    let address = net.dora(&discover(1));
    let answer = net.hears(&reboot(1, address));
    assert_eq!((answer.acked(), answer.why()), (address, Choice::Current));
    net.pass(u64::from(LEASE) * 10);
    assert_eq!(net.hears(&reboot(1, address)).why(), Choice::Previous);
}

#[test]
fn a_rebooted_client_that_remembers_wrongly_is_refused() {
    let mut net = Net::new();
    let address = net.dora(&discover(1));
    let other = if address == ip(9) { ip(10) } else { ip(9) };
    assert_eq!(net.hears(&reboot(1, other)).refused(), NakReason::HasOther { ip: address });
    let elsewhere = [10, 1, 2, 3].into();
    assert_eq!(net.hears(&reboot(1, elsewhere)).refused(), NakReason::WrongNetwork);
}

#[test]
fn a_rebooted_client_that_is_unknown_hears_nothing_unless_its_network_is_wrong() {
    let mut net = Net::new();
    let taken = net.dora(&discover(2));
    for address in [ip(9), taken] {
        let silence = net.hears(&reboot(1, address)).silent();
        assert_eq!(silence, Silence::UnknownClient { ip: address });
    }
    let elsewhere = [10, 1, 2, 3].into();
    assert_eq!(net.hears(&reboot(1, elsewhere)).refused(), NakReason::WrongNetwork);
}

#[test]
fn a_renewing_client_has_its_lease_extended() {
    let mut net = Net::new();
    let address = net.dora(&discover(1).named("web"));
    net.pass(1800);
    assert_eq!(net.hears(&renew(1, address)).acked(), address);
    let lease = net.lease(address).unwrap();
    assert_eq!(lease.expires, START + 1800 + u64::from(LEASE));
    assert_eq!(lease.hostname.as_ref().unwrap().as_str(), "web", "not repeated, not lost");
}

#[test]
fn a_renewing_client_that_is_unknown_keeps_a_free_address() {
    let mut net = Net::new();
    assert_eq!(net.hears(&renew(1, ip(9))).acked(), ip(9));
    assert_eq!(net.hears(&renew(2, ip(9))).refused(), NakReason::InUse);
    assert_eq!(net.hears(&renew(2, [10, 0, 0, 9].into())).refused(), NakReason::WrongNetwork);
    let answer = net.hears(&renew(1, ip(10)));
    assert_eq!(answer.refused(), NakReason::HasOther { ip: ip(9) });
}

#[test]
fn a_rebinding_client_is_answered_if_it_is_known() {
    let mut net = Net::new();
    let address = net.dora(&discover(1));
    assert_eq!(net.hears(&rebind(1, address)).acked(), address);
    assert_eq!(net.hears(&rebind(2, address)).refused(), NakReason::InUse);
    let free = if address == ip(9) { ip(10) } else { ip(9) };
    assert_eq!(net.hears(&rebind(2, free)).silent(), Silence::UnknownClient { ip: free });
}

#[test]
fn a_returning_client_gets_the_address_that_it_had() {
    let mut net = Net::new();
    let address = net.dora(&discover(1).option(50, &ip(77).octets()));
    net.pass(u64::from(LEASE) * 100);
    net.dora(&discover(2));
    let answer = net.hears(&discover(1));
    assert_eq!((answer.offered(), answer.why()), (address, Choice::Previous));
}

#[test]
fn the_address_that_has_been_free_for_longest_is_given_first() {
    let mut net = Net::with_range("192.168.122.10-192.168.122.12");
    let mut addresses = Vec::new();
    for number in 1..=3 {
        addresses.push(net.dora(&discover(number)));
        net.pass(10);
    }
    assert_eq!(net.hears(&discover(4)).silent(), Silence::Exhausted);
    net.pass(u64::from(LEASE));
    for (number, address) in (4..).zip(addresses) {
        let answer = net.hears(&discover(number));
        assert_eq!((answer.offered(), answer.why()), (address, Choice::LeastRecent));
    }
}

#[test]
fn a_running_lease_is_never_given_to_another_client() {
    let mut net = Net::with_range("192.168.122.10-192.168.122.10");
    net.dora(&discover(1));
    net.pass(u64::from(LEASE) - 1);
    assert_eq!(net.hears(&discover(2)).silent(), Silence::Exhausted);
    net.pass(1);
    assert_eq!(net.hears(&discover(2)).offered(), ip(10));
}

#[test]
fn a_released_address_is_free_and_remembered() {
    let mut net = Net::with_range("192.168.122.10-192.168.122.10");
    net.dora(&discover(1));
    let answer = net.hears(&release(1, ip(10)));
    assert_eq!(answer.event.decision, Decision::Released { ip: ip(10) });
    assert!(answer.reply.is_none());
    assert_eq!(net.lease(ip(10)).unwrap().state, LeaseState::Released);
    assert_eq!(net.hears(&discover(1)).why(), Choice::Previous);
    net.pass(20);
    assert_eq!(net.dora(&discover(2)), ip(10));
}

#[test]
fn an_address_on_offer_is_not_given_to_another_though_it_was_released() {
    let mut net = Net::with_range("192.168.122.10-192.168.122.10");
    net.dora(&discover(1));
    net.hears(&discover(1)).offered();
    net.hears(&release(1, ip(10)));
    assert_eq!(net.hears(&discover(2)).silent(), Silence::Exhausted);
    net.pass(20);
    assert_eq!(net.hears(&discover(2)).offered(), ip(10));
}

#[test]
fn nobody_can_release_or_decline_what_is_not_its_own() {
    let mut net = Net::new();
    let address = net.dora(&discover(1));
    let silence = Silence::NotTheirs { ip: address };
    assert_eq!(net.hears(&release(2, address)).silent(), silence);
    assert_eq!(net.hears(&decline(2, address)).silent(), silence);
    for forged in [release(1, address), decline(1, address)] {
        let forged = Says { src_mac: mac(2), ..forged };
        assert_eq!(net.hears(&forged).silent(), Silence::Forged { sender: mac(2) });
    }
    let other = says(MessageType::Release, 1).option(54, &ip(200).octets());
    assert_eq!(net.hears(&other).silent(), Silence::OtherServer { server: ip(200) });
    assert_eq!(net.hears(&says(MessageType::Decline, 1)).silent(), Silence::NoAddress);
    assert!(net.lease(address).unwrap().is_live(START));
}

#[test]
fn a_declined_address_rests() {
    let mut net = Net::with_range("192.168.122.10-192.168.122.11");
    let bad = net.dora(&discover(1));
    let answer = net.hears(&decline(1, bad));
    assert_eq!(answer.event.decision, Decision::Declined { ip: bad, until: START + 600 });
    assert!(answer.reply.is_none() && answer.persist.len() == 1);
    let good = net.dora(&discover(1).option(50, &bad.octets()));
    assert_ne!(good, bad);
    assert_eq!(net.hears(&select(2, bad)).refused(), NakReason::Quarantined);
    net.crash();
    assert_eq!(net.hears(&discover(2)).silent(), Silence::Exhausted);
    net.pass(600);
    assert_eq!(net.hears(&discover(2)).offered(), bad);
}

#[test]
fn a_guest_cannot_decline_the_whole_pool_away() {
    let mut net = Net::with_range("192.168.122.10-192.168.122.25");
    for _ in 0..100 {
        let address = net.dora(&discover(1));
        net.hears(&decline(1, address));
        net.pass(1);
    }
    let resting = net.server.leases().filter(|l| l.state == LeaseState::Declined).count();
    assert_eq!(resting, 2, "an eighth of 16");
    let mut others: Vec<_> = (2..=15).map(|number| net.dora(&discover(number))).collect();
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 14);
}

#[test]
fn an_inform_gets_options_and_no_lease() {
    let mut net = Net::new();
    let inform = Says { ciaddr: ip(240), broadcast: true, ..says(MessageType::Inform, 1) };
    let answer = net.hears(&inform);
    let reply = answer.reply();
    assert_eq!(reply.message.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!((reply.message.yiaddr(), reply.message.ciaddr()), (ANY, ip(240)));
    assert_eq!((reply.to.ip, reply.to.mac), (ip(240), mac(1)));
    assert_eq!(reply.codes(), [53, 54, 1, 28, 3, 6, 15, 26]);
    assert_eq!((answer.persist.len(), net.server.leases().len()), (0, 0));
    for ciaddr in [ANY, [10, 0, 0, 1].into(), ip(255), SERVER] {
        net.hears(&Says { ciaddr, ..inform.clone() }).silent();
    }
}

#[test]
fn rapid_commit_takes_two_messages() {
    let mut net = Net::new();
    let answer = net.hears(&discover(1).option(80, &[]));
    let address = answer.acked();
    assert!(answer.reply().codes().contains(&80));
    assert!(net.lease(address).unwrap().is_live(START));
    let mut net = Net::with(ServerConfig { rapid_commit: false, ..config() });
    let answer = net.hears(&discover(1).option(80, &[]));
    answer.offered();
    assert!(!answer.reply().codes().contains(&80));
}

#[test]
fn a_client_that_moves_to_another_address_gives_up_the_first() {
    let mut net = Net::new();
    let first = net.dora(&discover(1));
    let second = if first == ip(9) { ip(10) } else { ip(9) };
    let answer = net.hears(&select(1, second));
    assert_eq!(answer.acked(), second);
    assert_eq!(answer.persist[1], Record::Forget(first));
    net.crash();
    assert_eq!(net.server.leases().map(|lease| lease.ip).collect::<Vec<_>>(), [second]);
}

#[test]
fn no_acknowledged_lease_is_lost_in_a_crash() {
    let mut net = Net::new();
    let addresses: Vec<_> = (1..=50).map(|number| net.dora(&discover(number))).collect();
    let before: Vec<_> = net.server.leases().cloned().collect();
    net.crash();
    assert_eq!(net.server.leases().cloned().collect::<Vec<_>>(), before);
    for (number, address) in (1..=50).zip(addresses) {
        assert_eq!(net.hears(&reboot(number, address)).acked(), address);
    }
}

#[test]
fn clones_that_share_an_identifier_share_an_address_and_are_reported() {
    let mut net = Net::new();
    let address = net.dora(&discover(1).id(b"clone"));
    let answer = net.hears(&discover(2).id(b"clone"));
    assert_eq!(answer.offered(), address);
    assert_eq!(answer.event.shared_with, Some(mac(1)));
    assert!(
        answer.event.to_string().ends_with("; 52:54:00:00:00:01 uses the same client identifier")
    );

    let mut net = Net::with(ServerConfig { identity: Identity::Hardware, ..config() });
    let address = net.dora(&discover(1).id(b"clone"));
    let answer = net.hears(&discover(2).id(b"clone"));
    assert_ne!(answer.offered(), address);
    assert_eq!(answer.event.shared_with, None);
}

#[test]
fn the_first_to_take_a_name_keeps_it_while_its_lease_lasts() {
    let mut net =
        Net::with(ServerConfig { reservations: vec![reservation(9, 50, Some("db"))], ..config() });
    let name = |net: &Net, ip| net.lease(ip).unwrap().hostname.clone().map(String::from);
    let first = net.dora(&discover(1).named("web"));
    let answer = net.hears(&discover(2).named("WEB"));
    assert_eq!(answer.event.name_refused.unwrap().as_str(), "web");
    let second = net.dora(&discover(2).named("WEB"));
    assert_eq!((name(&net, first).as_deref(), name(&net, second)), (Some("web"), None));
    let third = net.dora(&discover(3).named("db"));
    assert_eq!(name(&net, third), None, "kept for the reservation");

    net.pass(u64::from(LEASE));
    net.hears(&renew(2, second).named("web")).acked();
    assert_eq!(name(&net, second).as_deref(), Some("web"));
    net.hears(&renew(1, first).named("web")).acked();
    assert_eq!(name(&net, first), None);
}

#[test]
fn a_name_is_still_its_holder_s_after_a_crash() {
    let mut net = Net::new();
    let high = net.dora(&discover(1).named("web").option(50, &ip(200).octets()));
    net.pass(u64::from(LEASE));
    let low = net.dora(&discover(2).named("web").option(50, &ip(100).octets()));
    net.crash();
    net.hears(&renew(1, high)).acked();
    assert_eq!(net.lease(high).unwrap().hostname, None);
    assert_eq!(net.lease(low).unwrap().hostname.as_ref().unwrap().as_str(), "web");
}

#[test]
fn a_name_that_is_reserved_while_another_guest_has_it_moves_when_that_one_renews() {
    let mut net = Net::new();
    let name = |net: &Net, ip| net.lease(ip).unwrap().hostname.clone().map(String::from);
    let holder = net.dora(&discover(2).named("db"));
    let reservations = vec![reservation(1, 50, Some("db"))];
    net.server.reconfigure(ServerConfig { reservations, ..config() }).unwrap();
    let reserved = net.dora(&discover(1));
    assert_eq!((name(&net, holder).as_deref(), name(&net, reserved)), (Some("db"), None));
    net.hears(&renew(2, holder)).acked();
    net.hears(&renew(1, reserved)).acked();
    assert_eq!((name(&net, holder), name(&net, reserved).as_deref()), (None, Some("db")));
}

#[test]
fn a_short_lease_is_given_to_who_asks_and_a_long_one_is_not() {
    let mut net = Net::new();
    let seconds = |net: &mut Net, asked: u32| {
        let answer = net.hears(&discover(1).option(51, &asked.to_be_bytes()));
        u32::from_be_bytes(answer.reply().bytes(51).unwrap().try_into().unwrap())
    };
    assert_eq!(seconds(&mut net, 600), 600);
    assert_eq!(seconds(&mut net, 1), 60);
    assert_eq!(seconds(&mut net, u32::MAX), LEASE);
}

#[test]
fn a_changed_range_moves_clients_when_they_renew() {
    let mut net = Net::new();
    let address = net.dora(&discover(1).option(50, &ip(200).octets()));
    let range = "192.168.122.2-192.168.122.99".parse().unwrap();
    net.server.reconfigure(ServerConfig { range, ..config() }).unwrap();
    assert_eq!(net.hears(&renew(1, address)).refused(), NakReason::NotServed);
    let moved = net.dora(&discover(1));
    assert!(range.contains(moved));
    assert_eq!(net.server.leases().len(), 1);
}

#[test]
fn messages_for_others_and_rubbish_are_passed_over() {
    let mut net = Net::new();
    let elsewhere = Says { to: ip(99), ..discover(1) };
    assert_eq!(net.hears(&elsewhere).silent(), Silence::NotForUs { to: ip(99) });
    let offer = Says { kind: 2, ..discover(1) };
    let error = MessageError::Type;
    assert_eq!(net.hears(&offer).silent(), Silence::Malformed { error });
    assert_eq!(net.hears(&says(MessageType::Request, 1)).silent(), Silence::NoAddress);
    let everybody = Says { to: ip(255), ..discover(1) };
    net.hears(&everybody).offered();
}
