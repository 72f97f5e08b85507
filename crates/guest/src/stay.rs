//! Staying on the network: answer, renew, and follow the link.
//!
//! ```text
//! lines: link down · link up · dhcp ok … · dhcp failed … · lease renewed … · lease lost …
//! ```
//!
//! ARP and echo requests are answered by smoltcp whenever it is polled.

use crate::network::{Lease, Network};
use crate::probe::Facts;
use crate::serial::say;
use crate::steps;
use crate::steps::dhcp::{self, Change};
use crate::time::Micros;
use crate::wait;

/// Between two looks at the link, in milliseconds, while frames keep coming.
const LINK_LOOK_MS: u64 = 100;

/// A time that never comes.
const NEVER: Micros = Micros(u64::MAX);

/// Where the guest stands.
enum State {
    /// The link is down.
    Down,
    /// Looking for an address since the first moment; it's said at the second that there is none.
    Looking(Micros, Micros),
    /// On the network.
    Bound(Lease),
}

/// Stays for ever.
pub(crate) fn run(network: &mut Network<'_>, lease: Option<Lease>, timeout_ms: u64) {
    let mut state = match lease {
        Some(lease) => State::Bound(lease),
        // That there is none was said already.
        None => State::Looking(network.now(), NEVER),
    };
    let mut look = network.now();
    let mut naks = network.nic.observed.dhcp.naks;
    loop {
        let now = network.now();
        // A wait that ended without a frame may have ended because of the link.
        if now >= look || !network.nic.has_frame() {
            look = now.plus_ms(LINK_LOOK_MS);
            state = follow_link(network, state, now.plus_ms(timeout_ms));
        }
        if matches!(state, State::Down) {
            // Nothing is due, and nothing can come.
            wait::idle(LINK_LOOK_MS * 1000);
            continue;
        }
        network.poll();
        dhcp::pause_after_nak(network, &mut naks, NEVER);
        state = follow_lease(network, state);
        network.idle(match state {
            State::Looking(_, give_up) => give_up,
            _ => NEVER,
        });
    }
}

fn follow_link(network: &mut Network<'_>, state: State, give_up: Micros) -> State {
    match (network.nic.link_is_up(), state) {
        (false, State::Looking(..) | State::Bound(_)) => {
            dhcp::restart(network);
            say!("link down");
            State::Down
        }
        (true, State::Down) => {
            say!("link up");
            dhcp::restart(network);
            State::Looking(network.now(), give_up)
        }
        (_, state) => state,
    }
}

fn follow_lease(network: &mut Network<'_>, state: State) -> State {
    let change = dhcp::change(network);
    let now = network.now();
    match (state, change) {
        (State::Looking(since, _), Some(Change::Bound(lease))) => {
            steps::ok("dhcp", now.since(since), format_args!("{}", Facts(&lease)));
            State::Bound(lease)
        }
        (State::Looking(since, give_up), _) if now >= give_up => {
            // It goes on looking, and says so no more.
            steps::failed("dhcp", now.since(since), &dhcp::why(network));
            State::Looking(since, NEVER)
        }
        (State::Bound(_), Some(Change::Bound(lease))) => {
            say!("lease renewed {}", Facts(&lease));
            State::Bound(lease)
        }
        (State::Bound(lease), Some(Change::Lost)) => {
            say!("lease lost address={}", lease.address);
            State::Looking(now, NEVER)
        }
        (state, _) => state,
    }
}
