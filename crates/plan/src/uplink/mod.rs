//! Moving a host's own network between its uplink and a bridge over it, and back.
//!
//! ```text
//! links ──► check ── refused, with the reason
//!             │
//!             ▼
//! addresses, routes, ──► Journal ──► prepare, Steps     the bridge, empty
//! rules, neighbours        │    └──► relocate, Requests one burst: both sides as they should be
//!                          │                 ▲
//!                          └── roll back ────┘          the same, the other way
//! ```
//!
//! [`relocate`] knows no direction: it compares what is on both links with what should be, and
//! says what is missing and what is too much. So moving there, moving back, and going on after a
//! crash in between are one function.

mod attributes;
mod check;
mod journal;
mod link;
mod record;
mod relocate;
mod resolver;
mod step;

pub use check::{Refusal, check, check_release};
pub use journal::{Journal, Phase};
pub use link::{LinkFacts, LinkId};
pub use record::{Record, What};
pub use relocate::{Both, Request, relocate};
pub use resolver::{Call, Domain, Resolver, Server};
pub use step::{Step, give_back, labelled, prepare, remove, settle};
