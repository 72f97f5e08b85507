//! What must be discarded (RFC 9915 §16).

use vnet_dhcp::v6::{MessageError, Silence};

use super::client::{
    Net, Says, confirm, decline, duid, inform, ip, rebind, release, renew, request, says, solicit,
};

#[track_caller]
fn malformed(says: &Says) -> MessageError {
    match Net::new().hears(says).silent() {
        Silence::Malformed { error } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_without_the_clients_identifier() {
    let has = ["fd00::150"];
    for says in [
        solicit(1),
        request(1, &has),
        confirm(1, &has),
        renew(1, &has),
        rebind(1, &has),
        release(1, &has),
        decline(1, &has),
    ] {
        assert_eq!(malformed(&says.without(1)), MessageError::NoClientId);
    }
}

#[test]
fn messages_for_all_servers_that_name_one() {
    let has = ["fd00::150"];
    for says in [solicit(1), confirm(1, &has), rebind(1, &has)] {
        assert_eq!(malformed(&says.for_us()), MessageError::UnexpectedServerId);
    }
}

#[test]
fn messages_for_one_server_that_name_none_or_another() {
    let has = ["fd00::150"];
    for says in [request(1, &has), renew(1, &has), release(1, &has), decline(1, &has)] {
        let nameless = says.clone().without(2);
        assert_eq!(malformed(&nameless), MessageError::NoServerId);
        let other = nameless.option(2, duid(0xee).as_bytes());
        assert_eq!(Net::new().hears(&other).silent(), Silence::OtherServer);
    }
    let other = inform(1).option(2, duid(0xee).as_bytes());
    assert_eq!(Net::new().hears(&other).silent(), Silence::OtherServer);
}

#[test]
fn an_information_request_for_addresses() {
    assert_eq!(malformed(&inform(1).ia(1, &[])), MessageError::UnexpectedIa);
}

#[test]
fn messages_for_all_servers_that_were_sent_to_one() {
    let has = ["fd00::150"];
    for says in [solicit(1), confirm(1, &has), rebind(1, &has), inform(1)] {
        let unicast = Says { dst: ip("fd00::1"), ..says };
        assert_eq!(Net::new().hears(&unicast).silent(), Silence::Unicast);
    }
}

#[test]
fn messages_of_servers_and_unknown_ones() {
    for kind in [0, 2, 7, 10, 13, 36, 255] {
        assert_eq!(malformed(&says(kind, 1)), MessageError::Type);
    }
}

#[test]
fn senders_that_nobody_could_answer() {
    for source in ["::", "::1", "ff02::1", "2001:db8::1", "fd01::5"] {
        let says = Says { src: ip(source), ..solicit(1) };
        let why = Net::new().hears(&says).silent();
        assert_eq!(why, Silence::BadSource { source: ip(source) });
    }
}

#[test]
fn identifiers_of_a_length_that_none_has() {
    for length in [0, 1, 2, 131] {
        let says = solicit(1).without(1).option(1, &vec![1; length]);
        assert_eq!(malformed(&says), MessageError::BadDuid);
    }
}

#[test]
fn more_than_a_client_has_a_use_for() {
    let many = (0..9).fold(says(1, 1), |says, iaid| says.ia(iaid, &[]));
    assert_eq!(malformed(&many), MessageError::TooMany);
    let addresses = ["fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd00::5"];
    assert_eq!(malformed(&says(1, 1).ia(1, &addresses)), MessageError::TooMany);
}

#[test]
fn a_message_cut_at_any_byte_changes_nothing_that_is_not_whole() {
    let says = request(1, &["fd00::155"]).named("web").wants(&[23, 24]);
    let bytes = says.bytes();
    for cut in 0..bytes.len() {
        let mut net = Net::new();
        let heard = net.receives(&says, &bytes[..cut]);
        // At the end of an option the rest is simply missing.
        let whole = super::client::says(3, 1).bytes().len() <= cut;
        assert!(whole || heard.bytes.is_empty(), "cut {cut}");
        assert_eq!(heard.persist.is_empty(), net.server.leases().len() == 0, "cut {cut}");
    }
}
